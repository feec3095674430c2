"""Replication of a Redis server: its role, its replicas, how far each is behind, and whether each would let us in.

Users do not replicate: a replica that lacks ours shuts everybody out on the day it becomes the master. So each replica
that the master names is tried with the account that the caller uses.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from events.bus import BusRefused
from events.redis.client import Commands

LOGIN_SECONDS = 2.0
#: So many replicas are tried; an installation has one or two.
MOST_REPLICAS = 16
_NUMBER = re.compile(r"[0-9]{1,18}")
_PORT = re.compile(r"[0-9]{1,5}")

#: Whether a replica lets an account in: `away` where it cannot be reached from here.
Login = Literal["in", "refused", "away"]


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica as its master sees it: `online` or not, seconds since it last answered, bytes that it lacks."""

    address: str
    online: bool
    lag_seconds: int
    behind_bytes: int
    login: Login = "away"


@dataclass(frozen=True, slots=True)
class Replication:
    """`role` is `master` or `slave`, as Redis says it; a server that is no master tells no replicas."""

    role: str
    replicas: tuple[Replica, ...] = ()


async def replication(commands: Commands, account: Mapping[str, Any]) -> Replication | None:
    """The server's replication now; None where this user may not ask. Raises BusUnavailable.

    `account` is what each replica is tried with (`events.redis.urls.login_of`).
    """
    try:
        told = await commands.call("INFO", "replication")
    except BusRefused:
        return None
    found = read_replication(told.decode(errors="replace") if isinstance(told, bytes) else told)
    logins = await asyncio.gather(*(_login(one.address, account) for one in found.replicas))
    replicas = zip(found.replicas, logins, strict=True)
    return Replication(
        found.role,
        tuple(Replica(one.address, one.online, one.lag_seconds, one.behind_bytes, login) for one, login in replicas),
    )


def read_replication(told: str) -> Replication:
    """What `INFO replication` says. A replica whose line cannot be read is left out."""
    fields = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    offset = _number(fields.get("master_repl_offset", ""))
    lines = [value for name, value in fields.items() if re.fullmatch(r"slave[0-9]{1,3}", name)]
    found = [_replica(line, offset) for line in lines[:MOST_REPLICAS]]
    return Replication(fields.get("role", ""), tuple(one for one in found if one is not None))


def _replica(line: str, offset: int) -> Replica | None:
    """Of `ip=10.0.0.2,port=6379,state=online,offset=42,lag=0`."""
    fields = dict(part.split("=", 1) for part in line.split(",") if "=" in part)
    host, port = fields.get("ip", ""), fields.get("port", "")
    if not host or not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        return None
    lag, seen = fields.get("lag", ""), fields.get("offset", "")
    return Replica(
        address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        online=fields.get("state") == "online",
        lag_seconds=_number(lag),
        behind_bytes=max(0, offset - _number(seen)),
    )


def _number(text: str) -> int:
    return int(text) if _NUMBER.fullmatch(text) else 0


async def _login(address: str, account: Mapping[str, Any]) -> Login:
    host, _, port = address.rpartition(":")
    client = Redis(
        host=host.strip("[]"),
        port=int(port),
        protocol=2,
        socket_timeout=LOGIN_SECONDS,
        socket_connect_timeout=LOGIN_SECONDS,
        retry=Retry(NoBackoff(), 0),
        **account,
    )
    try:
        async with client, asyncio.timeout(LOGIN_SECONDS + 1.0):
            await client.execute_command("PING")  # type: ignore[no-untyped-call]
    except (AuthenticationError, NoPermissionError):
        return "refused"
    except (RedisError, OSError, TimeoutError):
        return "away"
    return "in"
