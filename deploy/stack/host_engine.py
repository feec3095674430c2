"""The host's engine: whether it answers and admits us, which process it is, what it reports of itself.

Looked at before `docker` is asked anything: its own words for an engine that is unavailable help nobody.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

from deploy.machine.commands import MachineError
from deploy.stack.plugins import docker

DEFAULT_SOCKET = Path("/var/run/docker.sock")
PATIENCE_SECONDS = 10.0


def engine_socket(environment: Mapping[str, str]) -> Path:
    """The socket at which the engine answers. Raises MachineError, one line that says what to do."""
    address = environment.get("DOCKER_HOST") or f"unix://{DEFAULT_SOCKET}"
    if not address.startswith("unix://"):
        raise MachineError(
            f"DOCKER_HOST is {address}: the services need the engine's socket, so run this on its own host"
        )
    path = Path(address.removeprefix("unix://"))
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PATIENCE_SECONDS)
            probe.connect(str(path))
    except FileNotFoundError as problem:
        raise MachineError(f"no engine at {path}: install and start Docker, or point DOCKER_HOST to it") from problem
    except PermissionError as problem:
        raise MachineError(f"no rights on the engine's socket {path}: {_how_to_get_in(path)}") from problem
    except OSError as problem:
        raise MachineError(f"no engine answers at {path} ({problem.strerror or problem}): start it") from problem
    return path


def _how_to_get_in(path: Path) -> str:
    try:
        about = path.stat()
    except OSError:
        return "run this as root"
    if about.st_gid and about.st_mode & stat.S_IWGRP:
        return f"run this as root, or join its group {about.st_gid} and log in again"
    return "run this as root"


def engine_process(path: Path) -> int:
    """The process behind the socket, which may have a network of its own; ourselves where it cannot be seen."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PATIENCE_SECONDS)
        probe.connect(str(path))
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid) if pid and Path(f"/proc/{pid}/net/tcp").exists() else os.getpid()


def engine_facts() -> dict[str, str]:
    """`docker info`: the fields whose values are text."""
    info = json.loads(docker("info", "--format", "{{json .}}", seconds=60))
    return {name: value for name, value in info.items() if isinstance(value, str)}
