"""Faults on the wire: one command of one worker is harmed, everything else is well."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bench.fault_proxy import KINDS, STEPS, Fault, Kind, Proxy
from bench.fault_story import (
    LEASE_SECONDS,
    TIMEOUT_SECONDS,
    Journal,
    Verdict,
    envelopes,
    extra_runs,
    insist,
    subscription,
    verdict,
)
from events.redis_bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker import Worker


@dataclass
class Told:
    """One fault and what came of it. `takeover_seconds` and `handback_seconds` where the fault has one."""

    fault: str
    injected: bool
    verdict: Verdict
    duplicate_runs: int
    takeover_seconds: list[float]
    handback_seconds: list[float]


def cases(occurrences: int) -> list[tuple[str, Kind, int]]:
    """Every step, harmed in every way, at its first to its n-th time."""
    once = ("publish", "defer", "release", "bury")
    return [
        (step, kind, nth)
        for step in STEPS
        for kind in KINDS
        for nth in range(1, (1 if step in once else occurrences) + 1)
    ]


async def tell(address: tuple[str, int], prefix: str, step: str, kind: Kind, nth: int) -> Told:
    """The story with worker one behind the proxy; worker two, without harm, comes when the fault has struck."""
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
            found = await verdict(sound, streams)
            await two.drain(1.0)
    return Told(f"{step} {kind} {nth}", fault.injected.is_set(), found, extra_runs(journal.began), [], [])


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return  # this step did not come so often; the report counts only faults that struck
