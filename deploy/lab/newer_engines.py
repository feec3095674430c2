"""Newer engines than the machine's own, from a newer Debian suite's packages, cached in a folder.

Only the engine, containerd and its shim are taken: they need no newer C library. runc is the machine's own. Nothing of
the machine's apt is changed: the suite's lists live in a folder that is removed afterwards. The mirror is the one the
machine uses already.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from deploy.machine.commands import MachineError, run
from deploy.machine.debian import suite_options, unpack_packages

SUITES = {"26.1": "trixie", "28.5": "forky"}
"""Engine version → Debian suite that has it as `docker.io`."""

_PROGRAMS = (
    "usr/sbin/dockerd",
    "usr/sbin/docker-proxy",
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
)


def newer_engine(version: str, cache: Path) -> Path:
    """Folder with `dockerd` and what it starts. Raises MachineError for a version no suite has."""
    if version not in SUITES:
        raise MachineError(
            f"no engine {version} can be made here: choose one of {', '.join(SUITES)}, or the machine's own"
        )
    made = cache / "engines" / version
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent, prefix=f"{version}-") as scratch:
            root = Path(scratch, "root")
            options = suite_options(SUITES[version], Path(scratch))
            _require(version, options)
            unpack_packages(["docker.io", "containerd"], root, Path(scratch, "downloads"), options)
            programs = Path(scratch, "programs")
            programs.mkdir()
            for program in _PROGRAMS:
                shutil.move(root / program, programs / Path(program).name)
            if not made.exists():  # another laboratory may have made it meanwhile
                programs.rename(made)
    return made


def _require(version: str, options: list[str]) -> None:
    offered = run(["apt-cache", *options, "show", "--no-all-versions", "docker.io"])
    found = next((line.split()[1] for line in offered.splitlines() if line.startswith("Version:")), "nothing")
    if not found.startswith(f"{version}."):
        raise MachineError(f"Debian's {SUITES[version]} has engine {found}, not {version} any more")
