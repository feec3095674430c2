"""Inbox watch: tells connections that their range's inbox has a new entry; one read for all ranges.

Reading is done outside any group, so it takes nothing from anybody. A notification that gets lost does no harm: an
agent asks by itself every second.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from events.bus import BusClient, BusError
from events.streams import Streams

PAUSE_SECONDS = 1.0


class InboxWatch:
    """Follows the inboxes of all ranges that ever listened, so a range that comes and goes causes no new read."""

    def __init__(self, bus: BusClient, streams: Streams) -> None:
        self._bus = bus
        self._streams = streams
        self._listeners: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)
        self._places: dict[str, str] = {}
        self._changed = asyncio.Event()

    @contextmanager
    def listening(self, range_id: str, met: Callable[[], None]) -> Iterator[None]:
        """Inside, `met` is called for each new entry of the range's inbox."""
        inbox = self._streams.inbox(range_id)
        if inbox not in self._places:
            self._places[inbox] = "$"
            self._changed.set()
        self._listeners[inbox].append(met)
        try:
            yield
        finally:
            self._listeners[inbox].remove(met)

    async def run(self) -> None:
        """Until cancelled. The read begins again, where it was, when there is another inbox to read."""
        while True:
            self._changed.clear()
            if not self._places:
                await self._changed.wait()
                continue
            following = asyncio.create_task(self._follow())
            changed = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait((following, changed), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (following, changed):
                    task.cancel()
                await asyncio.wait((following, changed))
            if not self._changed.is_set():
                await asyncio.sleep(PAUSE_SECONDS)

    async def _follow(self) -> None:
        try:
            async for entry in self._bus.tail(list(self._places), after=dict(self._places)):
                self._places[entry.stream] = entry.entry_id
                for met in self._listeners.get(entry.stream, ()):
                    met()
        except BusError:
            return  # Redis is unavailable: read again after a pause
