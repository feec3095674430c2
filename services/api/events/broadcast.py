"""Broadcast: frames in a ring that every client reads at its own pace, so that a slow one costs the others nothing.

The ring is each client's queue: it is bounded, and a client that is so far behind that frames it has not read were
dropped is told so.
"""

from __future__ import annotations

import asyncio
from collections import deque

FRAMES = 8192
BYTES = 16 * 1024 * 1024
#: Frames of so many bytes are sent together at most.
BATCH_BYTES = 256 * 1024


class Lagged(Exception):
    """The client is behind by more than the ring holds."""


class Closed(Exception):
    """The server ends."""


class Broadcast:
    """The ring. `sequence` is the number of the next frame."""

    def __init__(self, frames: int = FRAMES, bytes_limit: int = BYTES) -> None:
        self._frames: deque[bytes] = deque()
        self._limit, self._bytes_limit = frames, bytes_limit
        self._bytes = 0
        self._news = asyncio.Event()
        self.sequence = 0
        self.closed = False

    def publish(self, frame: bytes) -> None:
        """Add a frame for everybody."""
        self._frames.append(frame)
        self._bytes += len(frame)
        self.sequence += 1
        while len(self._frames) > self._limit or self._bytes > self._bytes_limit:
            self._bytes -= len(self._frames.popleft())
        self._wake()

    def close(self) -> None:
        """End every client."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def take(self, sequence: int) -> tuple[bytes, int]:
        """Frames from `sequence` on, joined, and the number of the next one. Raises Lagged."""
        first = self.sequence - len(self._frames)
        if sequence < first:
            raise Lagged
        taken: list[bytes] = []
        size = 0
        while sequence < self.sequence and size < BATCH_BYTES:
            frame = self._frames[sequence - first]
            taken.append(frame)
            size += len(frame)
            sequence += 1
        return b"".join(taken), sequence

    async def wait(self, sequence: int, seconds: float) -> bool:
        """Wait for a frame behind `sequence`. False: none came in time. Raises Closed."""
        news = self._news
        if self.closed:
            raise Closed
        if sequence < self.sequence:
            return True
        try:
            async with asyncio.timeout(seconds):
                await news.wait()
        except TimeoutError:
            return False
        if self.closed:
            raise Closed
        return True
