"""Who serves: every process of the host's side says so for each of its roles, until it stops.

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

from events.bus import BusError, IndexWrite, Outcome, Speaker, Subscription

BEAT_SECONDS = 5.0
LASTS_SECONDS = 3 * BEAT_SECONDS
_FORGOTTEN_SECONDS = 86400.0


class RoleBeat(msgspec.Struct, frozen=True, kw_only=True):
    """What a serving process says of itself. `at` is by its own clock."""

    role: str
    host: str
    pid: int
    version: str
    at: datetime


class Presence:
    """Beats for the roles of one process. Runs beside them as one more role that listens to nothing."""

    name = "presence"

    def __init__(
        self,
        *,
        speaker: Speaker,
        prefix: str,
        roles: Sequence[str],
        host: str,
        pid: int,
        beat_seconds: float = BEAT_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._speaker = speaker
        self._prefix = prefix
        self._roles = roles
        self._host, self._pid = host, pid
        self._beat_seconds = beat_seconds
        self._clock = clock

    def subscriptions(self) -> Sequence[Subscription]:
        return ()

    async def run(self) -> None:
        """For ever; what is missed while Redis is away is missed."""
        forgotten = False
        while True:
            with suppress(BusError):
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
            await self._speaker.beat(f"{self._prefix}:role:{member}", msgspec.json.encode(beat), LASTS_SECONDS)
            index.append(IndexWrite(f"{self._prefix}:index:roles", member, now.timestamp()))
        await self._speaker.commit(Outcome(index=tuple(index)))

    async def _forget(self) -> None:
        """Processes that are long gone."""
        key = f"{self._prefix}:index:roles"
        gone = await self._speaker.members(key, high=self._clock().timestamp() - _FORGOTTEN_SECONDS)
        if gone:
            await self._speaker.commit(Outcome(index=tuple(IndexWrite(key, member, None) for member in gone)))


async def serving(speaker: Speaker, prefix: str) -> dict[str, list[RoleBeat]]:
    """Who serves each role now; a role that nobody serves is not there. Raises BusError."""
    members = await speaker.members(f"{prefix}:index:roles")
    beats = await speaker.beats([f"{prefix}:role:{member}" for member in members]) if members else []
    found: dict[str, list[RoleBeat]] = defaultdict(list)
    for value in beats:
        if value is not None:
            beat = msgspec.json.decode(value, type=RoleBeat)
            found[beat.role].append(beat)
    return dict(found)


def own_version() -> str:
    """Of this installation; a tree that was never installed has none."""
    try:
        return version("cyroid-images")
    except PackageNotFoundError:
        return "unknown"
