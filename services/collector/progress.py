"""Progress of a collection: the latest step of each phase, published once a second at most, and lossy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal

from events.bus import BusClient, BusError, Outcome, Post
from events.envelope import Envelope
from events.messages import CollectProgress
from events.streams import Streams

Phase = Literal["marking", "scrubbing", "quarantining", "freeing", "measuring"]
#: Reports `(phase, done, total, done_bytes)`.
Step = Callable[[Phase, int, int, int], None]
#: How often the latest step is published, and about how many steps the stream keeps.
EVERY_SECONDS = 1.0
KEPT = 1000


class CollectionProgress:
    """What the steps of one collection report to; also of a scrub. Without `publishing` nobody hears of it."""

    def __init__(self, bus: BusClient, streams: Streams, source: str, cause: Envelope) -> None:
        self._bus = bus
        self._streams = streams
        self._source = source
        self._cause = cause
        self._latest: CollectProgress | None = None

    def step(self, phase: Phase, done: int = 0, total: int = 0, done_bytes: int = 0) -> None:
        """Remember where it is now."""
        self._latest = CollectProgress(
            collection_id=self._cause.id, phase=phase, done=done, total=total, done_bytes=done_bytes
        )

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[CollectionProgress]:
        """Publish the steps while inside, the last one at the end too."""
        task = asyncio.create_task(self._publish())
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self._say(None)

    async def _publish(self) -> None:
        said: CollectProgress | None = None
        while True:
            said = await self._say(said)
            await asyncio.sleep(EVERY_SECONDS)

    async def _say(self, said: CollectProgress | None) -> CollectProgress | None:
        latest = self._latest
        if latest is not None and latest != said:
            envelope = self._cause.causes(latest, source=self._source, subject="registry")
            with suppress(BusError):  # the next step is told again
                await self._bus.commit(Outcome(posts=(Post(self._streams.progress, envelope, keep=KEPT),)))
        return latest


def untold(phase: Phase, done: int, total: int, done_bytes: int) -> None:
    """Nobody follows it."""
