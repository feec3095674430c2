"""Whether somebody uses the engine: connections of clients, and the work that its folders show.

The agent has a socket of its own, so whoever is connected to another one is somebody else: a client with a pull, a load
or a build under way, one that follows a log, or one that may ask for anything next. Standard library only, see init.py.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_CONNECTED, _ESTABLISHED = "03", "01"
#: Linux, uapi/linux/unix_diag.h and sock_diag.h.
_SOCK_DIAG, _BY_FAMILY, _DUMP, _TCP_ESTABLISHED = 4, 20, 0x301, 1
_SHOW_NAME, _NAME, _SHUTDOWN, _BOTH_WAYS = 1, 0, 6, b"\3"
_ANSWER_SECONDS = 2.0
#: What a pull, a load, a build and a commit have on disk while they are under way.
_WORK = (
    "tmp/GetImageBlob*",
    "tmp/docker-import-*",
    "tmp/docker-builder*",
    "image/overlay2/layerdb/tmp/*",
    "buildkit/executor/*/",
)
#: An engine that was killed leaves some behind.
_STALE_SECONDS = 3600.0


def clients(sockets: Sequence[str], engine: int, proc: Path = Path("/proc")) -> int:
    """Connections to `sockets`: a path, or a TCP port of the process `engine`."""
    paths, ports = {name for name in sockets if not name.isdigit()}, {int(name) for name in sockets if name.isdigit()}
    found = _local(paths) + sum(_unix(network, paths) for network in _other_networks(proc))
    return found + sum(_tcp(proc / str(engine) / "net" / table, ports) for table in ("tcp", "tcp6"))


def work(root: Path) -> list[str]:
    """What is under way, by its folder or file below the engine's data."""
    now = time.time()
    found = []
    for pattern in _WORK:
        for path in root.glob(pattern):
            with suppress(OSError):
                if now - path.stat().st_mtime < _STALE_SECONDS:
                    found.append(str(path.relative_to(root)))
    return found


def _local(paths: set[str]) -> int:
    """Connections of clients in this network. An engine keeps some whose client has gone: those do not count.

    Asked over sock_diag(7), as /proc/net/unix does not tell a client that has gone.
    """
    count = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(_ANSWER_SECONDS)
        wanted = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 1 << _TCP_ESTABLISHED, 0, _SHOW_NAME, 0, 0)
        kernel.send(struct.pack("=IHHII", 16 + len(wanted), _BY_FAMILY, _DUMP, 1, 0) + wanted)
        while True:
            answer = kernel.recv(1 << 16)
            while len(answer) >= 16:
                length, kind = struct.unpack_from("=IH", answer)
                if kind != _BY_FAMILY:
                    return count
                told = dict(_attributes(answer[32:length]))
                name = os.fsdecode(told.get(_NAME, b"").rstrip(b"\0"))
                count += name in paths and told.get(_SHUTDOWN) != _BOTH_WAYS
                answer = answer[(length + 3) & ~3 :]


def _attributes(text: bytes) -> Iterator[tuple[int, bytes]]:
    while len(text) >= 4:
        length, kind = struct.unpack_from("=HH", text)
        yield kind, text[4:length]
        text = text[max(4, (length + 3) & ~3) :]


def _other_networks(proc: Path) -> Iterator[Path]:
    """The `net` folder of one process in each other network: a connection is in its client's network."""
    seen = {os.readlink("/proc/self/ns/net")}
    for process in proc.glob("[0-9]*"):
        with suppress(OSError):
            network = os.readlink(process / "ns/net")
            if network not in seen:
                seen.add(network)
                yield process / "net"


def _unix(network: Path, paths: set[str]) -> int:
    count = 0
    with suppress(OSError):
        for line in (network / "unix").read_text(errors="surrogateescape").splitlines()[1:]:
            words = line.split(maxsplit=7)
            count += len(words) == 8 and words[5] == _CONNECTED and words[7] in paths
    return count


def _tcp(table: Path, ports: set[int]) -> int:
    count = 0
    with suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            words = line.split()
            count += words[3] == _ESTABLISHED and int(words[1].rpartition(":")[2], 16) in ports
    return count
