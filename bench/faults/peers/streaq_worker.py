"""The workload on streaq, as its documentation advises.

StreaqRetry for what may work next time, an `idle_timeout` after which the work of a silent worker is reclaimed (renewed
while a task runs), a grace at SIGTERM, and the least prefetch there is.
"""

from __future__ import annotations

import asyncio
from typing import Any

from anyio import create_task_group
from streaq import StreaqRetry, Worker  # type: ignore[import-not-found]

from bench.faults.peers.workload import (
    GRACE_SECONDS,
    SUBJECTS,
    NotThisTimeError,
    WorkerArguments,
    arguments,
    job,
    ready,
)


def build(said: WorkerArguments) -> tuple[Any, Any]:
    worker = Worker(
        redis_url=said.url,
        queue_name=said.prefix,
        concurrency=4,
        prefetch=1,
        idle_timeout=said.lease_seconds,
        grace_period=GRACE_SECONDS,
        id=said.worker,
    )

    async def handle(subject: str) -> None:
        try:
            effect = await job(subject, said.folder)
        except NotThisTimeError as problem:
            raise StreaqRetry("not this time", delay=0.1) from problem
        await worker.redis.xadd(said.effects, {"effect": effect})

    return worker, worker.task(name="handle")(handle)


async def work(said: WorkerArguments) -> None:
    worker, _ = build(said)
    async with create_task_group() as tasks:
        await tasks.start(worker.run_async)
        ready()


async def publish(said: WorkerArguments) -> None:
    worker, handle = build(said)
    async with worker:
        for subject in SUBJECTS:
            task = handle.enqueue(subject)
            task.id = subject
            await task


if __name__ == "__main__":
    asyncio.run({"work": work, "publish": publish}[arguments().verb](arguments()))
