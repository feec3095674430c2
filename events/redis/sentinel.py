"""Sentinel: a client of whatever server the sentinels say is the master.

The master's address is asked anew for each connection, and a connection is only used once the server itself has said
that it is a master (`ROLE`): sentinels may name a demoted one for a moment, and a replica would serve blocking reads
without ever being noticed. A server that is demoted closes connections that wait, and refuses writes (READONLY), on
which the library closes the connection; so whoever was connected to it asks again within one command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

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


class MasterTlsConnection(MasterConnection, SSLConnection):
    """The same over TLS."""


class SentinelsRefuse(AuthenticationError):
    """No sentinel told a master, and one or more did not let us in."""


class Sentinels(Sentinel):
    """Sentinels that are asked by one at a time, in redis-py's way (8.1) but for two things.

    It puts the sentinel that answered first, by the place that it had when it was asked. Of two callers at once, one
    may write over a sentinel with another: it is never asked again, and never closed. And where none answers, its error
    has all of each client's options, and not what was wrong.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], **asking: Any) -> None:
        super().__init__(addresses, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
        self._asking = asyncio.Lock()

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The master's address. Raises redis' MasterNotFoundError, SentinelsRefuse."""
        async with self._asking:
            told, refused = list[str](), False
            for place, sentinel in enumerate(self.sentinels):
                try:
                    masters: Mapping[str, Any] = await sentinel.sentinel_masters()  # type: ignore[assignment]
                except (RedisConnectionError, RedisTimeoutError, NoPermissionError) as error:
                    told.append(f"{_address(sentinel)}: {error}")
                    refused |= isinstance(error, AuthenticationError | NoPermissionError)
                    continue
                state = masters.get(service_name)
                if state is not None and self.check_master_state(state, service_name):
                    self.sentinels[0], self.sentinels[place] = sentinel, self.sentinels[0]
                    return str(state["ip"]), int(state["port"])
                known = (
                    "says that it is down" if state is not None else f"knows {', '.join(map(repr, masters)) or 'none'}"
                )
                told.append(f"{_address(sentinel)} {known}")
            kind = SentinelsRefuse if refused else MasterNotFoundError
            raise kind(f"no sentinel names a master {service_name!r} ({'; '.join(told)})")


def _address(sentinel: Redis) -> str:
    options = sentinel.connection_pool.connection_kwargs
    return f"{options['host']}:{options['port']}"


class SentinelClient:
    """The master's client; closing it closes the clients of the sentinels too."""

    def __init__(
        self, addresses: Sequence[tuple[str, int]], service: str, *, asking: Mapping[str, Any], **options: Any
    ) -> None:
        """`asking`: account and TLS options for the sentinels; `options`, with `ssl` among them, for the servers."""
        never = Retry(NoBackoff(), 0)
        patience = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}
        self._sentinel = Sentinels(addresses, **patience, protocol=2, retry=never, **asking)
        connection = MasterTlsConnection if options.pop("ssl", False) else MasterConnection
        self._master: Redis = self._sentinel.master_for(service, connection_class=connection, **options)
        self._master.response_callbacks.clear()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self._master.execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, *, transaction: bool) -> Any:
        return self._master.pipeline(transaction=transaction)

    async def aclose(self) -> None:
        await self._master.aclose()
        await self._sentinel.aclose()
