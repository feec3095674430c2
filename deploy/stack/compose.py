"""The stack as Compose runs it: which files, which images, which paths of this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.lab.commands import LabError
from deploy.stack.images import STANDINS
from deploy.stack.nested import LESS, OVERRIDE, ROOT, engine_facts, nested_options
from deploy.stack.plugins import docker, docker_environment

DATA = Path("/data/cyroid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """`data` is CYROID_DATA_DIR; `ranges` are options of `docker run` for a nested engine."""

    data: Path
    environment: dict[str, str]
    demo: bool
    ranges: tuple[str, ...]

    def compose(self, *words: str, seconds: float = 300.0, environment: Mapping[str, str] | None = None) -> str:
        """`docker compose words…`, with `environment` added to ours. Raises LabError with what it said."""
        files = ["--file", str(ROOT / "docker-compose.yml")]
        if self.ranges == LESS:
            files += ["--file", str(OVERRIDE)]
        profile = ["--profile", "demo"] if self.demo else []
        whole = ["compose", "--project-directory", str(ROOT), *files, *profile, *words]
        return docker(*whole, seconds=seconds, environment={**self.environment, **(environment or {})})

    def running(self) -> list[str]:
        return self.compose("ps", "--services", "--status", "running").split()


def look_around(*, demo: bool, need_images: bool = True) -> Stack:
    """The stack for the engine that `docker` talks to. Raises LabError, a line for each thing that is missing."""
    environment = dict(docker_environment())
    data = Path(environment.setdefault("CYROID_DATA_DIR", str(DATA)))
    facts = engine_facts()
    socket = _socket(environment)
    environment.setdefault("STACK_ENGINE_SOCKET", str(socket))
    environment.setdefault("STACK_ENGINE_ROOT", facts["DockerRootDir"])
    environment.setdefault("STACK_ENGINE_GID", str(socket.stat().st_gid))
    for variable, pulled, standin in (
        ("STACK_REGISTRY_IMAGE", "registry:2", STANDINS["registry"]),
        ("STACK_REDIS_IMAGE", "redis:7", STANDINS["redis"]),
    ):
        if variable not in environment and not image_there(pulled) and image_there(standin):
            environment[variable] = standin
    range_image = environment.get("STACK_RANGE_1_IMAGE", "cyroid/range:28.5")
    missing = [name for name in (environment.get("STACK_IMAGE", "cyroid/images:latest"),) if not image_there(name)]
    missing += [range_image] if demo and not image_there(range_image) else []
    if missing and need_images:
        raise LabError(f"not built yet: {', '.join(missing)}; run `make images`, without pulling `… BASE=debootstrap`")
    options = nested_options(range_image) if demo and not missing else ()
    return Stack(data=data, environment=environment, demo=demo, ranges=options)


def image_there(name: str) -> bool:
    return bool(docker("image", "ls", "--quiet", name, seconds=60).strip())


def _socket(environment: dict[str, str]) -> Path:
    address = environment.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not address.startswith("unix://"):
        raise LabError(f"DOCKER_HOST is {address}: the services need the engine's socket, so run this on its own host")
    path = Path(address.removeprefix("unix://"))
    try:
        mode = path.stat().st_mode
    except OSError as problem:
        raise LabError(f"no engine at {path} ({problem.strerror}): start it, or point DOCKER_HOST to it") from problem
    if not stat.S_ISSOCK(mode) or not os.access(path, os.W_OK):
        raise LabError(f"{path} cannot be written to: run this as root or as a member of its group")
    return path
