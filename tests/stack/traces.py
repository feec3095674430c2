"""What an engine leaves on the machine, beside its images: processes, mounts, links, firewall rules, files of
containers.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Traces:
    """Each a set of names; what a later one has more was left behind."""

    processes: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]
    rules: frozenset[str]
    files: frozenset[str]

    def beyond(self, earlier: Traces) -> dict[str, list[str]]:
        """What is here and was not there."""
        more = {each.name: sorted(getattr(self, each.name) - getattr(earlier, each.name)) for each in fields(self)}
        return {kind: names for kind, names in more.items() if names}


def traces(engine: Path, root: Path) -> Traces:
    """Of the engine that listens on the socket `engine` and keeps its files in `root`."""
    pid = listener(engine)
    mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return Traces(
        # Without a command line it has ended, and only waits for a parent's question that dockerd never asks.
        processes=frozenset(f"{one} {said}" for one in _descendants(pid) if (said := _command(one))),
        mounts=frozenset(line.split()[4] for line in mounts),
        links=frozenset(_names(inside(pid, "ip", "-o", "link", "show"))),
        rules=frozenset(line for line in inside(pid, "iptables-save").splitlines() if line.startswith("-A")),
        files=frozenset(_files(root)),
    )


def listener(path: Path) -> int:
    """The process that listens on a socket (unix(7), SO_PEERCRED)."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(path))
        found = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", found)
    return int(pid)


def inside(pid: int, *command: str) -> str:
    """What a command says in the network of a process."""
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *command],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )
    return done.stdout


def _descendants(pid: int) -> list[int]:
    """The engine is the first process of its namespace: shims, containers and nested engines are all below it."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue  # it ended meanwhile
        for child in children:
            found += [child, *_descendants(child)]
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _names(links: str) -> list[str]:
    return [line.split(": ")[1].partition("@")[0] for line in links.splitlines()]


def _files(root: Path) -> list[str]:
    """Containers, volumes and writable layers in an engine's folder."""
    folders = (root / "containers", root / "volumes", root / "image/overlay2/layerdb/mounts")
    return [str(path) for folder in folders if folder.exists() for path in folder.iterdir()]
