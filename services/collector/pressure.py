"""Watch of the disk that the registry's storage is on: an alarm, and room, before it is full.

Below `limit_percent` of the disk free the alarm `registry.disk_pressure` is published once, however many replicas watch
and however often they start, and room is made in the order of what can be had again:

    retention    what the rules do not keep is deleted
    collection   what is unreferenced is set aside, and quarantine lasts ten minutes instead of a day
    reclaim      the host engine's copies that a rule allows go, at once: often the same disk

Again every quarter of an hour while it lasts. Above the limit and a quarter more of it the alarm is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from uuid import NAMESPACE_URL, uuid5

from events.bus import BusClient, BusError, Outcome, Post, RecordConflict
from events.envelope import Envelope
from events.messages import CollectRequested, DiskPressure, Message, ReclaimRequested, RetentionRequested
from events.streams import Streams
from services.collector.storage import RegistryStorage
from services.collector.sweep import SETTLE_SECONDS
from services.core.store.pressure import DiskState, disk_state, disk_state_key
from services.runtime import metrics
from services.runtime.telemetry import get_logger

#: How often the disk is looked at, and room is made while it has none.
LOOK_SECONDS = 15.0
AGAIN_SECONDS = 900.0


class DiskWatch:
    """One replica's watch. `limit_percent` 0: nobody watches."""

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        source: str,
        storage: RegistryStorage,
        limit_percent: float,
        clock: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._source = source
        self._storage = storage
        self._limit_percent = limit_percent
        self._clock = clock
        self._log = get_logger(role="collector")

    async def run(self) -> None:
        """Look at the disk for ever."""
        while self._limit_percent:
            with suppress(BusError, OSError):  # Redis, or the folder, is unavailable: the next look
                await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> DiskState:
        """One look, with what follows from it. Raises BusError, OSError."""
        free, total = space = await asyncio.to_thread(self._storage.space)
        key = disk_state_key(self._streams.prefix)
        stored = await key.load(self._bus)
        before = stored.value or DiskState()
        after = disk_state(before, space, self._limit_percent, now=self._clock(), again_seconds=AGAIN_SECONDS)
        metrics.store_free_bytes.set(free)
        metrics.store_pressure.set(after.low)
        if after == before:
            return after
        posts = self._room(after) if after.low else ()
        if after.low != before.low:
            limit = int(total * self._limit_percent / 100)
            alarm = DiskPressure(low=after.low, free_bytes=free, total_bytes=total, limit_bytes=limit)
            posts = (self._post(alarm, f"alarm/{after.since}/{after.low}"), *posts)
        with suppress(RecordConflict):  # another replica saw it first
            await self._bus.commit(Outcome(posts=posts, records=(key.write(after, expected=stored),)))
            self._log.warning("the registry's disk", low=after.low, free_bytes=free, limit_percent=self._limit_percent)
        return after

    def _room(self, state: DiskState) -> tuple[Post, ...]:
        commands = (
            RetentionRequested(),
            CollectRequested(keep_seconds=SETTLE_SECONDS),
            ReclaimRequested(patterns=("*",), why="pressure"),
        )
        return tuple(self._post(one, f"room/{state.since}/{state.rounds}/{type(one).__name__}") for one in commands)

    def _post(self, message: Message, name: str) -> Post:
        envelope_id = str(uuid5(NAMESPACE_URL, f"{self._streams.prefix}/pressure/{name}"))
        envelope = Envelope(id=envelope_id, message=message, source=self._source, subject="registry")
        return Post(self._streams.images, envelope)
