"""Heartbeat of a process of the host's side, for each of its roles, until it stops.

    {prefix}:role:<role>:<host>.<pid>   RoleBeat, expires after three beats missed
    {prefix}:index:roles                `<role>:<host>.<pid>` by the time of the last beat

Roles in a range have a heart of their own (`Streams.alive`); they may not write here.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import msgspec

from events.bus import BusClient, BusError, IndexWrite, Outcome
from events.malformed import MALFORMED
from events.subscription import Subscription

BEAT_SECONDS = 5.0
LASTS_SECONDS = 3 * BEAT_SECONDS
_FORGOTTEN_SECONDS = 86400.0


class RoleBeat(msgspec.Struct, frozen=True, kw_only=True):
    """Heartbeat of a serving process. `at` is by its own clock."""

    role: str
    host: str
    pid: int
    version: str
    at: datetime


class HeartbeatSender:
    """Sends the heartbeats of one process's roles. Runs beside them as one more role that consumes nothing."""

    name = "presence"

    def __init__(
        self,
        *,
        bus: BusClient,
        prefix: str,
        roles: Sequence[str],
        host: str,
        pid: int,
        beat_seconds: float = BEAT_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus = bus
        self._prefix = prefix
        self._roles = roles
        self._host, self._pid = host, pid
        self._beat_seconds = beat_seconds
        self._clock = clock

    def subscriptions(self) -> Sequence[Subscription]:
        return ()

    async def run(self) -> None:
        """Send until cancelled; heartbeats are skipped while Redis is unavailable."""
        forgotten = False
        while True:
            with suppress(BusError, OSError):  # no descriptor left, no name resolved: the next beat may do
                if not forgotten:
                    await self._forget()
                    forgotten = True
                await self._beat()
            await asyncio.sleep(self._beat_seconds)

    async def _beat(self) -> None:
        now, index = self._clock(), []
        for role in self._roles:
            beat = RoleBeat(role=role, host=self._host, pid=self._pid, version=own_version(), at=now)
            member = f"{role}:{self._host}.{self._pid}"
            await self._bus.beat(f"{self._prefix}:role:{member}", msgspec.json.encode(beat), LASTS_SECONDS)
            index.append(IndexWrite(f"{self._prefix}:index:roles", member, now.timestamp()))
        await self._bus.commit(Outcome(index=tuple(index)))

    async def _forget(self) -> None:
        """Remove processes from the index that ended long ago."""
        key = f"{self._prefix}:index:roles"
        gone = await self._bus.members(key, high=self._clock().timestamp() - _FORGOTTEN_SECONDS)
        if gone:
            await self._bus.commit(Outcome(index=tuple(IndexWrite(key, member, None) for member in gone)))


async def serving(bus: BusClient, prefix: str) -> dict[str, list[RoleBeat]]:
    """The processes that serve each role now, by role; without roles that no process serves. Raises BusError."""
    members = await bus.members(f"{prefix}:index:roles")
    beats = await bus.beats([f"{prefix}:role:{member}" for member in members]) if members else []
    found: dict[str, list[RoleBeat]] = defaultdict(list)
    for value in beats:
        with suppress(*MALFORMED):  # of another version, or nobody's: it says nothing
            if value is not None:
                beat = msgspec.json.decode(value, type=RoleBeat)
                found[beat.role].append(beat)
    return dict(found)


async def processes(bus: BusClient, prefix: str, *, since: datetime) -> dict[str, int]:
    """How many processes serve each role now, with 0 for one that was served after `since` alone. Raises BusError."""
    seen = await bus.members(f"{prefix}:index:roles", low=since.timestamp())
    now = await serving(bus, prefix)
    return {role: len(now.get(role, ())) for role in {*now, *(member.partition(":")[0] for member in seen)}}


def own_version() -> str:
    """The version of this installation; of a tree that was never installed there is none."""
    try:
        return version("cyroid-images")
    except PackageNotFoundError:
        return "unknown"
