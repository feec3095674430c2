"""Watch of a disk: an alarm, and commands that make room, before it is full.

Below `limit_percent` of the disk free the alarm `registry.disk_pressure` is published once, however many replicas watch
and however often they start, together with the commands that make room. Those come again every quarter of an hour
while it lasts. Above the limit and a quarter more of it the alarm is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from uuid import NAMESPACE_URL, uuid5

from events.bus import BusClient, BusError, Outcome, Post, RecordConflict
from events.envelope import Envelope
from events.messages import DiskPressure, Message
from events.records import Key
from events.streams import Streams
from services.core.store.pressure import DiskState, disk_state
from services.runtime.telemetry import get_logger

#: How often the disk is looked at, and room is made while it has none.
LOOK_SECONDS = 15.0
AGAIN_SECONDS = 900.0


class DiskWatch:
    """One replica's watch. `limit_percent` 0: nobody watches.

    key      where the state is kept, shared by all who watch this disk
    space    bytes that are free, and all there are; raises OSError
    room     commands that make room, in this order
    host     whose engine's disk it is; None: that of the registry's storage
    seen     told of each look: bytes free, and whether that is too little
    """

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        source: str,
        key: Key[DiskState],
        space: Callable[[], tuple[int, int]],
        limit_percent: float,
        room: Sequence[Message],
        clock: Callable[[], float],
        host: str | None = None,
        seen: Callable[[int, bool], None] = lambda free_bytes, low: None,
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._source = source
        self._key = key
        self._space = space
        self._limit_percent = limit_percent
        self._room_commands = tuple(room)
        self._clock = clock
        self._host = host
        self._seen = seen
        self._log = get_logger(role=source.partition("@")[0])

    async def run(self) -> None:
        """Look at the disk for ever."""
        while self._limit_percent:
            with suppress(BusError, OSError):  # Redis, or the folder, is unavailable: the next look
                await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> DiskState:
        """One look, with what follows from it. Raises BusError, OSError."""
        free, total = space = await asyncio.to_thread(self._space)
        stored = await self._key.load(self._bus)
        before = stored.value or DiskState()
        after = disk_state(before, space, self._limit_percent, now=self._clock(), again_seconds=AGAIN_SECONDS)
        self._seen(free, after.low)
        if after == before:
            return after
        posts = self._room(after) if after.low else ()
        if after.low != before.low:
            limit = int(total * self._limit_percent / 100)
            alarm = DiskPressure(low=after.low, free_bytes=free, total_bytes=total, limit_bytes=limit, host=self._host)
            posts = (self._post(alarm, f"alarm/{after.since}/{after.low}"), *posts)
        with suppress(RecordConflict):  # another replica saw it first
            await self._bus.commit(Outcome(posts=posts, records=(self._key.write(after, expected=stored),)))
            disk = f"of the engine of host {self._host}" if self._host else "of the registry"
            self._log.warning(
                "disk pressure", disk=disk, low=after.low, free_bytes=free, limit_percent=self._limit_percent
            )
        return after

    def _room(self, state: DiskState) -> tuple[Post, ...]:
        return tuple(
            self._post(one, f"room/{state.since}/{state.rounds}/{type(one).__name__}") for one in self._room_commands
        )

    def _post(self, message: Message, name: str) -> Post:
        """The same entry from every replica."""
        envelope_id = str(uuid5(NAMESPACE_URL, f"{self._key.name}/{name}"))
        envelope = Envelope(id=envelope_id, message=message, source=self._source, subject=self._host or "registry")
        return Post(self._streams.images, envelope)
