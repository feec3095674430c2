"""Faults on the wire: one command of one worker is broken, everything else works."""

from __future__ import annotations

import asyncio

from bench.faults.proxy import KINDS, STEPS, Fault, Kind, Proxy
from bench.faults.trials import FaultResult
from bench.faults.workload import (
    LEASE_SECONDS,
    TIMEOUT_SECONDS,
    Journal,
    envelopes,
    extra_runs,
    insist,
    settle,
    subscription,
)
from events.redis.bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker


def cases(occurrences: int) -> list[tuple[str, Kind, int]]:
    """Every step, harmed in every way, at its first to its n-th time."""
    once = ("publish", "defer", "release", "dead_letter")
    return [
        (step, kind, nth)
        for step in STEPS
        for kind in KINDS
        for nth in range(1, (1 if step in once else occurrences) + 1)
    ]


async def run_trial(address: tuple[str, int], prefix: str, step: str, kind: Kind, nth: int) -> FaultResult:
    """Run the workload with worker one behind the proxy; worker two, without harm, comes when the fault has struck."""
    streams = Streams(prefix)
    fault = Fault(step, nth, kind)
    journal = Journal()
    proxy = Proxy(address, fault)
    direct = f"redis://{address[0]}:{address[1]}/0"
    async with (
        proxy.running(),
        RedisBus.open(proxy.url, timeout_seconds=TIMEOUT_SECONDS) as harmed,
        RedisBus.open(direct, timeout_seconds=5.0) as sound,
    ):
        one = Worker(harmed, subscription(harmed, streams, journal.begin), name="one")
        two = Worker(sound, subscription(sound, streams, journal.begin), name="two")
        async with TaskGroup() as tasks:
            running = [tasks.create_task(one.run())]
            await insist(harmed, streams.images, envelopes())
            if step == "release":
                await _within(journal.long_began, 2.5 * LEASE_SECONDS)
            else:
                await _within(fault.injected, 2.5 * LEASE_SECONDS)
            running.append(tasks.create_task(two.run()))
            await one.drain(0.0 if step == "release" else 0.3)
            found = await settle(sound, streams)
            await two.drain(1.0)
    return FaultResult(f"{step} {kind} {nth}", fault.injected.is_set(), found, extra_runs(journal.began), [], [])


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return  # this step did not come so often; the report counts only faults that struck
