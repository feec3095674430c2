"""A door and a link between two hosts, as HAProxy runs them, on loopback."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.machine.commands import need
from deploy.machine.polling import poll


@dataclass(frozen=True)
class Hosts:
    """Certificates, and how the further host reaches Redis and registry of the first one.

    Whatever listens on `tar_server_port` is the first host's tar server, for the further one on `link_tar_port`. The
    further host's is on `further_tar_port`; the door asks the link for it at `archives_port`, and ranges of the first
    host ask the door at `door_tar_port`.
    """

    certificates: Path
    redis_port: int
    registry_port: int
    door_redis_port: int
    tar_server_port: int
    link_tar_port: int
    further_tar_port: int
    archives_port: int
    door_tar_port: int

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def registry_url(self) -> str:
        return f"http://127.0.0.1:{self.registry_port}"


@contextmanager
def haproxy(file: Path, text: str, *ports: int) -> Iterator[None]:
    """Running until it listens on all of these."""
    file.write_text(text)
    with subprocess.Popen([need("haproxy", "haproxy"), "-db", "-f", str(file)]) as process:
        try:
            assert poll(lambda: all(map(_listens, ports)), seconds=30, every=0.1)
            yield
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
