"""Load generator for the bus: a publisher, a worker that commits nothing, and a process to measure them in."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path

from events.bus import BusClient, Delivery, Outcome
from events.envelope import Envelope
from events.messages import PushRequested
from events.redis.bus import RedisBus
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.task_group import TaskGroup
from events.worker.worker import Worker

SLOTS = 256
TYPICAL = PushRequested(reference="docker.io/library/nginx:1.27", why="auto")
BATCH = 128


def progress(text: str) -> None:
    """For a person, on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def consume(streams: Streams, note: Callable[[Envelope], None]) -> Subscription:
    """One handler that notes the envelope."""

    async def handle(delivery: Delivery[PushRequested]) -> Outcome | None:
        note(delivery.envelope)
        return None

    return Subscription(
        group="bench",
        streams=lambda: [streams.images],
        handlers=Handlers().on(PushRequested, handle, key=None, give_up=None),
        slots=SLOTS,
        dead_stream=streams.dead,
    )


async def produce(bus: BusClient, streams: Streams, count: int) -> None:
    """Publish `count` envelopes, a batch at a time."""
    for start in range(0, count, BATCH):
        batch = [Envelope(message=TYPICAL, source="bench", subject="nginx") for _ in range(min(BATCH, count - start))]
        await bus.publish(streams.images, *batch)


def resident_bytes() -> int:
    """This process's resident memory, from the kernel."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


async def weigh(url: str, count: int) -> dict[str, float]:
    """Resident size after 10,000 messages and after `count`; old entries and markers are let go of on the way."""
    streams = Streams("memory")
    seen = 0

    def note(_: Envelope) -> None:
        nonlocal seen
        seen += 1

    async with RedisBus.open(url, streams=streams, remember_seconds=5) as bus:
        worker = Worker(bus, consume(streams, note))
        first = 0
        async with TaskGroup() as tasks:
            tasks.create_task(worker.run())
            published = 0
            while published < count:
                await produce(bus, streams, 10_000)
                published += 10_000
                async with asyncio.timeout(120):
                    while seen < published:  # noqa: ASYNC110  paced by the worker's own progress
                        await asyncio.sleep(0.005)
                await bus.trim(streams.images, 1.0)
                first = first or resident_bytes()
                if published % 100_000 == 0:
                    progress(f"  {published}: {resident_bytes() / 1e6:.1f} MB")
            last = resident_bytes()
            await worker.drain(10)
    return {"memory_ratio": round(last / first, 3), "memory_mb": round(last / 1e6, 1), "memory_messages": published}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(weigh(sys.argv[1], int(sys.argv[2])))))
