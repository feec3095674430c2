"""Sentinel of the laboratory: watches a master of Redis and its replicas, and makes a replica the master."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.lab.redis_server import RedisServer, RedisTls
from deploy.lab.server import Server, free_port
from deploy.machine.commands import need

SERVICE = "images"


class SentinelServer(Server):
    """One sentinel. `quorum` of them have to find the master away; `account`: user and password to watch with.

    `directives` are further lines of sentinel.conf, such as its own password, which `asking` is then.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        mark: str,
        master: RedisServer,
        *,
        quorum: int = 1,
        account: tuple[str, str] | None = None,
        directives: Sequence[str] = (),
        asking: tuple[str, str] | None = None,
        tls: RedisTls | None = None,
    ) -> None:
        super().__init__(name, folder, mark)
        self.port = free_port()
        self._master = master
        self._quorum = quorum
        self._account = account
        self._directives = directives
        self._asking = asking
        self._tls = tls

    def prepare(self) -> None:
        configuration = self.folder / "sentinel.conf"
        if configuration.exists():  # it keeps there what it knows
            return
        user, password = self._account or ("", "")
        login = f"sentinel auth-user {SERVICE} {user}\nsentinel auth-pass {SERVICE} {password}\n" if user else ""
        listening = self._tls.directives(self.port) if self._tls else {"port": str(self.port)}
        own = "".join(f"{line}\n" for line in (*map(" ".join, listening.items()), *self._directives))
        configuration.write_text(
            f"{own}bind 127.0.0.1\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._master.port} {self._quorum}\n{login}"
            f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 3000\n"
        )

    def command(self) -> list[str]:
        return [need("redis-sentinel", "redis-sentinel"), str(self.folder / "sentinel.conf")]

    def answers(self) -> bool:
        return self.ask("ping") == "PONG"

    def ask(self, *words: str) -> str:
        """What `redis-cli` says to the words, as text."""
        return redis_cli(self.port, *words, account=self._asking, tls=self._tls)


def redis_cli(port: int, *words: str, account: tuple[str, str] | None = None, tls: RedisTls | None = None) -> str:
    """What `redis-cli` prints for the words; errors are text as well."""
    login = ["--user", account[0], "--pass", account[1], "--no-auth-warning"] if account else []
    if tls is not None:
        login += tls.cli_options()
    asked = subprocess.run(
        ["redis-cli", "-p", str(port), *login, *words], capture_output=True, text=True, timeout=10, check=False
    )
    return asked.stdout.strip()
