"""Docker's command line with `compose` and `buildx`, whether the machine has them or not.

Where they are missing they come out of Debian's packages into a cache folder: nothing on the machine changes.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from deploy.machine.cache import default_cache
from deploy.machine.commands import MachineError, need, run
from deploy.machine.debian import suite_options, unpack_packages

#: Plugin → the Debian package that has it, in `SUITE`; both run on older releases.
PACKAGES = {"compose": "docker-compose", "buildx": "docker-buildx"}
SUITE = "forky"


@cache
def docker_environment() -> Mapping[str, str]:
    """This process's environment, with DOCKER_CONFIG pointing to the plugins where the machine has none."""
    need("docker", "docker.io (docker-cli from trixie on)")
    if all(_answers(plugin, os.environ) for plugin in PACKAGES):
        return dict(os.environ)
    config = default_cache() / "docker-config"
    environment = {**os.environ, "DOCKER_CONFIG": str(config)}
    if not all(_answers(plugin, environment) for plugin in PACKAGES):
        _fetch(config / "cli-plugins")
    for plugin in PACKAGES:
        if not _answers(plugin, environment):
            raise MachineError(f"`docker {plugin}` does not work: install it for this machine's docker command line")
    return environment


def docker(
    *words: str, seconds: float = 600.0, environment: Mapping[str, str] | None = None, stdin: str | None = None
) -> str:
    """`docker words…` to its end; its output. Raises MachineError with what it said."""
    command = [need("docker", "docker.io"), *words]
    return run(command, seconds=seconds, env=environment or docker_environment(), stdin=stdin)


def _answers(plugin: str, environment: Mapping[str, str]) -> bool:
    done = subprocess.run(["docker", plugin, "version"], capture_output=True, env=environment, check=False, timeout=60)
    return done.returncode == 0


def _fetch(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        root = Path(scratch, "root")
        options = suite_options(SUITE, Path(scratch))
        unpack_packages(list(PACKAGES.values()), root, Path(scratch, "downloads"), options)
        for name in PACKAGES.values():
            (root / "usr/libexec/docker/cli-plugins" / name).replace(folder / name)
