"""Discovery of ranges, for roles that consume every range's outbox.

Two indexes name the ranges that announced themselves and those that something was asked for
(`services.core.ranges.ranges`); only their latest entries are read each round. A new range publishes first to its own
outbox, which is found by a walk through all keys: at the start, and then the more rarely the longer the walk takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from events.bus import BusClient
from events.streams import Streams
from services.core.ranges.ranges import RangeKeys

FIND_SECONDS = 2.0
#: The walk may take this share of the time, and is made at least this often.
_WALK_SHARE = 0.02
_WALK_LIMIT_SECONDS = 60.0
#: Entries may be this late: they carry the time of the replica that wrote them, and it takes a moment.
_OVERLAP_SECONDS = 120.0


class RangeFinder:
    """Discovers ranges. `found` are the ids known so far, in the order of discovery; none is ever removed."""

    def __init__(self, *, bus: BusClient, streams: Streams, clock: Callable[[], datetime]) -> None:
        self.found: dict[str, None] = {}
        self._bus = bus
        self._streams = streams
        self._keys = RangeKeys(streams.prefix)
        self._clock = clock
        self._read_to = float("-inf")
        self._walk_at = float("-inf")

    async def find(self) -> None:
        """One round. Raises BusError."""
        began = self._clock().timestamp()
        for key in (self._keys.known_index, self._keys.asked):
            self.found.update(dict.fromkeys(await self._bus.members(key, low=self._read_to)))
        self._read_to = began - _OVERLAP_SECONDS
        loop = asyncio.get_running_loop()
        if loop.time() >= self._walk_at:
            started = loop.time()
            await self._walk()
            took = loop.time() - started
            self._walk_at = loop.time() + min(took / _WALK_SHARE, _WALK_LIMIT_SECONDS)

    async def _walk(self) -> None:
        for stream in await self._bus.discover(self._streams.outbox_pattern):
            range_id = self._streams.range_of(stream)
            if range_id is not None:
                self.found.setdefault(range_id)
