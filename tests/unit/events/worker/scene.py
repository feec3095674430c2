"""A worker on a bus in memory, in faked time: what its tests stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from events.bus import (
    Delivery,
    Outcome,
    Post,
)
from events.dead_letters import DeadLetter, dead_letters
from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import PushRequested
from events.streams import Streams
from events.subscription import GiveUp, Handler, Handlers, KeyOf, Subscription
from events.worker.observer import Counter
from events.worker.worker import Worker

STREAMS = Streams("test")


#: No stream of ours, so anything may be published there.
EFFECTS = f"{STREAMS.prefix}:effects"


class ProgressCounters:
    """Counts, as an observer does."""

    def __init__(self) -> None:
        self.counts: dict[Counter, int] = {}

    def count(self, group: str, counter: Counter, amount: int = 1) -> None:
        self.counts[counter] = self.counts.get(counter, 0) + amount

    def took(self, group: str, seconds: float) -> None:
        assert seconds >= 0


class Scene:
    """A bus, what is said on it, and the workers of one test."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.counters = ProgressCounters()

    async def say(self, subject: str = "a", stream: str | None = None) -> Envelope:
        envelope = Envelope(message=PushRequested(reference=subject), source="test", subject=subject)
        await self.bus.publish(stream or STREAMS.images, envelope)
        return envelope

    @asynccontextmanager
    async def worker(
        self,
        handler: Handler[PushRequested],
        *,
        key: KeyOf[PushRequested] | None = None,
        give_up: GiveUp[PushRequested] | None = None,
        **changes: Any,
    ) -> AsyncIterator[Worker]:
        """A worker that runs within the block and is drained after it."""
        options: dict[str, Any] = {
            "group": "pusher",
            "streams": lambda: [STREAMS.images],
            "handlers": Handlers().on(PushRequested, handler, key=key, give_up=give_up),
            "dead_stream": STREAMS.dead,
            "lease_seconds": 10.0,
            **changes,
        }
        worker = Worker(self.bus, Subscription(**options), name="w", observer=self.counters)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
            await worker.drain(60)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def effects(self) -> list[str]:
        entries = self.bus.tail([EFFECTS], after="0", follow=False)
        return [entry.envelope.subject async for entry in entries if entry.envelope]

    async def letters(self) -> list[DeadLetter]:
        return await dead_letters(self.bus, STREAMS.dead)

    async def settled(self) -> None:
        """Until nothing is pending, at most an hour of the loop's time."""
        async with asyncio.timeout(3600):
            while True:
                statuses = await self.bus.groups([STREAMS.images])
                if statuses and all(status.pending + (status.lag or 0) == 0 for status in statuses):
                    return
                await asyncio.sleep(0.05)


def effect(delivery: Delivery[PushRequested]) -> Outcome:
    told = delivery.envelope.causes(delivery.message, source="w", subject=delivery.envelope.subject)
    return Outcome(posts=(Post(EFFECTS, told),))
