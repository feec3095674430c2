"""Redis server of the laboratory: append-only file, no eviction, loopback."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from deploy.lab.server import Server, free_port
from deploy.machine.commands import need


@dataclass(frozen=True, slots=True)
class RedisTls:
    """Files of a server that speaks TLS alone, and wants a certificate of whoever connects; each has its key in it."""

    authority: Path
    server: Path
    client: Path

    def directives(self, port: int) -> dict[str, str]:
        """For redis.conf and sentinel.conf alike."""
        return {
            "port": "0",
            "tls-port": str(port),
            "tls-replication": "yes",
            "tls-ca-cert-file": str(self.authority),
            "tls-cert-file": str(self.server),
            "tls-key-file": str(self.server),
            "tls-client-cert-file": str(self.client),
            "tls-client-key-file": str(self.client),
        }

    def cli_options(self) -> list[str]:
        """For redis-cli."""
        return ["--tls", "--cacert", str(self.authority), "--cert", str(self.client), "--key", str(self.client)]

    def context(self) -> ssl.SSLContext:
        """For a client."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.client)
        return context


class RedisServer(Server):
    """`conf` are redis.conf directives, with `_` for `-`; they come after, so over, the defaults."""

    def __init__(
        self, name: str, folder: Path, mark: str, conf: dict[str, str], *, tls: RedisTls | None = None
    ) -> None:
        super().__init__(name, folder, mark)
        self.port = int(conf.pop("port", 0)) or free_port()
        self._conf = conf
        self._tls = tls

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
        conf |= self._tls.directives(self.port) if self._tls else {}
        options = [part for key, value in conf.items() for part in (f"--{key}", value)]
        return [need("redis-server", "redis-server"), *options]

    def answers(self) -> bool:
        try:
            with self._connection() as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))
        except OSError:
            return False

    def _connection(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=1)
        if self._tls is None:
            return connection
        return self._tls.context().wrap_socket(connection, server_hostname="127.0.0.1")
