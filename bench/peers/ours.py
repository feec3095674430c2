"""The tale on the project's own bus: the effect is committed with the acknowledgement."""

from __future__ import annotations

import asyncio
import signal

from bench.peers.tale import GRACE_SECONDS, SUBJECTS, Told, job, ready, told
from events.bus import Delivery, Outcome, Post, Subscription
from events.envelope import Envelope
from events.messages import PushRequested
from events.redis_bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker import Worker


def subscription(said: Told, streams: Streams) -> Subscription:
    async def handle(delivery: Delivery) -> Outcome:
        effect = PushRequested(reference=await job(delivery.envelope.subject, said.folder))
        return Outcome(posts=(Post(said.effects, delivery.envelope.causes(effect, source="tale", subject="effect")),))

    return Subscription(
        group="tale",
        streams=lambda: [streams.images],
        handlers={PushRequested: handle},
        slots=4,
        lease_seconds=said.lease_seconds,
        backoff_seconds=0.1,
        dead_stream=streams.dead,
    )


async def work(said: Told) -> None:
    streams = Streams(said.prefix)
    async with RedisBus.open(said.url, streams=streams) as bus:
        worker = Worker(bus, subscription(said, streams), name=said.worker)
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
        async with TaskGroup() as tasks:
            tasks.create_task(worker.run())
            ready()
            await asked.wait()
            await worker.drain(GRACE_SECONDS)


async def publish(said: Told) -> None:
    streams = Streams(said.prefix)
    async with RedisBus.open(said.url, streams=streams) as bus:
        for subject in SUBJECTS:
            message = PushRequested(reference=subject)
            await bus.publish(streams.images, Envelope(message=message, source="tale", subject=subject))


if __name__ == "__main__":
    asyncio.run({"work": work, "publish": publish}[told().verb](told()))
