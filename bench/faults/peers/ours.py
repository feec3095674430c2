"""The workload on the project's own bus: the effect is committed with the acknowledgement."""

from __future__ import annotations

import asyncio
import signal

from bench.faults.peers.workload import GRACE_SECONDS, SUBJECTS, WorkerArguments, arguments, job, ready
from events.bus import Delivery, Outcome, Post
from events.envelope import Envelope
from events.messages import PushRequested
from events.redis.bus import RedisBus
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.task_group import TaskGroup
from events.worker.worker import Worker


def subscription(said: WorkerArguments, streams: Streams) -> Subscription:
    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        effect = PushRequested(reference=await job(delivery.envelope.subject, said.folder))
        return Outcome(posts=(Post(said.effects, delivery.envelope.causes(effect, source="peer", subject="effect")),))

    return Subscription(
        group="peer",
        streams=lambda: [streams.images],
        handlers=Handlers().on(PushRequested, handle, key=None, give_up=None),
        slots=4,
        lease_seconds=said.lease_seconds,
        backoff_seconds=0.1,
        dead_stream=streams.dead,
    )


async def work(said: WorkerArguments) -> None:
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


async def publish(said: WorkerArguments) -> None:
    streams = Streams(said.prefix)
    async with RedisBus.open(said.url, streams=streams) as bus:
        for subject in SUBJECTS:
            message = PushRequested(reference=subject)
            await bus.publish(streams.images, Envelope(message=message, source="peer", subject=subject))


if __name__ == "__main__":
    asyncio.run({"work": work, "publish": publish}[arguments().verb](arguments()))
