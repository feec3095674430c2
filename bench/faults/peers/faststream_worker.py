"""The workload on FastStream, as its documentation advises for work that must not get lost.

A group with a consumer per process, an acknowledgement after success only (NACK_ON_ERROR leaves the entry pending),
and a second subscriber with `min_idle_time` that claims what others left. One entry at a time (`max_records=1`), so
that nothing waits in a worker that may vanish. It does not renew, so `min_idle_time` must outlast the longest job.
"""

from __future__ import annotations

import asyncio

from faststream import AckPolicy, FastStream  # type: ignore[import-not-found]
from faststream.redis import RedisBroker, StreamSub  # type: ignore[import-not-found]

from bench.faults.peers.workload import GRACE_SECONDS, SUBJECTS, WorkerArguments, arguments, job, ready


async def work(said: WorkerArguments) -> None:
    broker = RedisBroker(said.url, graceful_timeout=GRACE_SECONDS, logger=None)

    async def handle(subject: str) -> None:
        await broker.publish(await job(subject, said.folder), stream=said.effects)

    stream, group = f"{said.prefix}:jobs", "peer"
    fresh = StreamSub(stream, group=group, consumer=said.worker, max_records=1)
    left = StreamSub(
        stream, group=group, consumer=f"{said.worker}-claims", min_idle_time=round(said.lease_seconds * 1000)
    )
    for subscriber in (fresh, left):
        broker.subscriber(stream=subscriber, ack_policy=AckPolicy.NACK_ON_ERROR)(handle)
    await FastStream(broker, after_startup=[ready]).run()


async def publish(said: WorkerArguments) -> None:
    async with RedisBroker(said.url, logger=None) as broker:
        for subject in SUBJECTS:
            await broker.publish(subject, stream=f"{said.prefix}:jobs")


if __name__ == "__main__":
    asyncio.run({"work": work, "publish": publish}[arguments().verb](arguments()))
