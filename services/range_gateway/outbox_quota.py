"""Outbox quota: bounds how much of Redis's memory the outbox of a range takes.

What every group has acknowledged is dropped first. What then still is too much was not read by the services yet, or
came faster than they read: the range waits, nobody else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from events.streams import Streams

ENTRIES_LIMIT = 5000
BYTES_LIMIT = 16 * 1024 * 1024
#: Acknowledged entries are kept so long for people to look at, while there is room.
KEPT_SECONDS = 60.0
#: Redis is asked again after so many messages or bytes.
_MESSAGES = 50
_BYTES = 1024 * 1024


class StreamSizes(Protocol):
    """The methods of the bus that are used here."""

    async def lengths(self, streams: Sequence[str]) -> list[int]: ...

    async def weights(self, streams: Sequence[str]) -> list[int]: ...

    async def trim(self, stream: str, keep_seconds: float) -> int: ...


class OutboxQuota:
    """The quota of every range."""

    def __init__(self, sizes: StreamSizes, streams: Streams) -> None:
        self._sizes = sizes
        self._streams = streams
        self._left: dict[str, tuple[int, int]] = {}

    async def take(self, range_id: str, messages: int, size_bytes: int) -> bool:
        """Reserve space for so many messages of so many bytes in all. False: the outbox is full. Raises BusError."""
        left_messages, left_bytes = self._left.get(range_id, (0, 0))
        if left_messages < messages or left_bytes < size_bytes:
            left_messages, left_bytes = await self._look(range_id)
        if left_messages < messages or left_bytes < size_bytes:
            self._left.pop(range_id, None)
            return False
        self._left[range_id] = (left_messages - messages, left_bytes - size_bytes)
        return True

    async def _look(self, range_id: str) -> tuple[int, int]:
        """Measure how many messages and bytes may be added before the next check."""
        outbox = self._streams.outbox(range_id)
        entries, weight = await self._measure(outbox)
        if entries >= ENTRIES_LIMIT - _MESSAGES or weight >= BYTES_LIMIT - _BYTES:
            await self._sizes.trim(outbox, KEPT_SECONDS)
            entries, weight = await self._measure(outbox)
        return min(_MESSAGES, ENTRIES_LIMIT - entries), min(_BYTES, BYTES_LIMIT - weight)

    async def _measure(self, outbox: str) -> tuple[int, int]:
        (entries,) = await self._sizes.lengths([outbox])
        (weight,) = await self._sizes.weights([outbox])
        return entries, weight
