"""Sentinel: a client of whatever server the sentinels say is the master.

The master's address is asked anew for each connection, and a connection is only used once the server itself has said
that it is a master (`ROLE`): sentinels may name a demoted one for a moment, and a replica would serve blocking reads
without ever being noticed. A server that is demoted closes connections that wait, and refuses writes (READONLY), on
which the library closes the connection; so whoever was connected to it asks again within one command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

#: One of three sentinels may be on the machine that is gone, and is asked first: it must not use up a command's time.
SENTINEL_SECONDS = 1.0


class MasterConnection(SentinelManagedConnection):
    """A connection to a server that says it is a master."""

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health=check_health)
        await self.send_command("ROLE", check_health=False)
        try:
            role = await self.read_response(disable_decoding=True)
        except NoPermissionError:  # a user of an older list; a write to a replica is refused all the same
            return
        if role[0] != b"master":
            raise RedisConnectionError(f"{self.host}:{self.port} is no master but a {role[0].decode()}")


class Sentinels(Sentinel):
    """Sentinels that are asked by one at a time.

    Whoever found an answer puts that sentinel first, by the place that it had when it was asked (redis-py 8.1). Of two
    callers at once, one may write over a sentinel with another: it is never asked again, and never closed.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], **asking: Any) -> None:
        super().__init__(addresses, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
        self._asking = asyncio.Lock()

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The master's address. Raises redis' MasterNotFoundError."""
        async with self._asking:
            host, port = await super().discover_master(service_name)
            return host, port


class SentinelClient:
    """The master's client; closing it closes the clients of the sentinels too."""

    def __init__(self, addresses: Sequence[tuple[str, int]], service: str, **options: Any) -> None:
        never = Retry(NoBackoff(), 0)
        asking = {
            "socket_timeout": SENTINEL_SECONDS,
            "socket_connect_timeout": SENTINEL_SECONDS,
            "protocol": 2,
            "retry": never,
        }
        self._sentinel = Sentinels(addresses, **asking)
        self._master: Redis = self._sentinel.master_for(service, connection_class=MasterConnection, **options)
        self._master.response_callbacks.clear()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self._master.execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, *, transaction: bool) -> Any:
        return self._master.pipeline(transaction=transaction)

    async def aclose(self) -> None:
        await self._master.aclose()
        await self._sentinel.aclose()
