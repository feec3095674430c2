"""Finding the ranges there are, for roles that listen to every range's outbox.

Two indexes name the ranges that announced themselves and those that something was asked for (`services.core.ranges`);
only their latest entries are read each round. A range that nobody knows of yet speaks first in its own outbox, and that
is found by a walk through all keys: at the start, and then the more rarely the longer the walk takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from events.bus import Speaker
from events.streams import Streams
from services.core.ranges import RangeKeys

FIND_SECONDS = 2.0
#: The walk may take this share of the time, and is made at least this often.
_WALK_SHARE = 0.02
_WALK_LIMIT_SECONDS = 60.0
#: Entries may be this late: they carry the time of the replica that wrote them, and it takes a moment.
_OVERLAP_SECONDS = 120.0


class RangeFinder:
    """`found` are the range ids known so far, in the order of their finding; they only ever become more."""

    def __init__(self, *, speaker: Speaker, streams: Streams, clock: Callable[[], datetime]) -> None:
        self.found: dict[str, None] = {}
        self._speaker = speaker
        self._streams = streams
        self._keys = RangeKeys(streams.prefix)
        self._clock = clock
        self._read_to = float("-inf")
        self._walk_at = float("-inf")

    async def find(self) -> None:
        """One round. Raises BusError."""
        began = self._clock().timestamp()
        for key in (self._keys.known_index, self._keys.asked):
            self.found.update(dict.fromkeys(await self._speaker.members(key, low=self._read_to)))
        self._read_to = began - _OVERLAP_SECONDS
        loop = asyncio.get_running_loop()
        if loop.time() >= self._walk_at:
            started = loop.time()
            await self._walk()
            took = loop.time() - started
            self._walk_at = loop.time() + min(took / _WALK_SHARE, _WALK_LIMIT_SECONDS)

    async def _walk(self) -> None:
        for stream in await self._speaker.discover(self._streams.outbox_pattern):
            range_id = self._streams.range_of(stream)
            if range_id is not None:
                self.found.setdefault(range_id)
