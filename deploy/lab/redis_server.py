"""Redis server of the laboratory: append-only file, no eviction, loopback."""

from __future__ import annotations

import socket
from pathlib import Path

from deploy.lab.server import Server, free_port
from deploy.machine.commands import need


class RedisServer(Server):
    """`conf` are redis.conf directives, with `_` for `-`; they come after, so over, the defaults."""

    def __init__(self, name: str, folder: Path, mark: str, conf: dict[str, str]) -> None:
        super().__init__(name, folder, mark)
        self.port = int(conf.pop("port", 0)) or free_port()
        self._conf = conf

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        conf = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        } | {key.replace("_", "-"): value for key, value in self._conf.items()}
        options = [part for key, value in conf.items() for part in (f"--{key}", value)]
        return [need("redis-server", "redis-server"), *options]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))
        except OSError:
            return False
