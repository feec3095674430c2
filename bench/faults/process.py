"""Faults of a worker process: it is killed, stopped or asked to end exactly before or after one of its commands.

The worker is a child whose connections go through the proxy; the proxy sends the signal at the chosen request. Killed
*before* a command, that command never reaches Redis; stopped before it, it arrives when another worker has long taken
over, which is what fencing is for.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.faults.proxy import Fault, Proxy
from bench.faults.trials import FaultResult
from bench.faults.workload import (
    LEASE_SECONDS,
    TIMEOUT_SECONDS,
    Journal,
    envelopes,
    extra_runs,
    insist,
    line,
    settle,
    subscription,
)
from events.redis.bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker

STEPS = ("take", "wait", "read", "acquire", "renew", "finish", "defer", "dead_letter", "release", "recover")
SIGNS = ("SIGKILL", "SIGSTOP", "SIGTERM")


def cases() -> list[tuple[str, str, str]]:
    """`release` comes with the drain that SIGTERM begins, so that is how the other signals get to it."""
    return [(step, when, sign) for step in STEPS for when in ("before", "after") for sign in SIGNS]


async def run_trial(address: tuple[str, int], prefix: str, step: str, when: str, sign: str) -> FaultResult:
    """Worker one is a child; worker two, in this process, sees what is left of its work."""
    streams = Streams(prefix)
    journal, struck_at = Journal(), 0.0
    fault, woken = Fault(step), asyncio.Event()
    proxy = Proxy(address, fault)
    direct = f"redis://{address[0]}:{address[1]}/0"
    async with proxy.running(), RedisBus.open(direct) as bus, child(proxy.url, prefix) as (process, began):

        async def strike() -> bool:
            nonlocal struck_at
            struck_at = time.time()
            process.send_signal(getattr(signal, sign))
            if sign == "SIGSTOP" and when == "before":
                await woken.wait()
            return sign != "SIGKILL"

        setattr(fault, when, strike)
        if step == "renew":  # it is the long one's lease that is to be on its way
            fault.armed = lambda: any(subject == "long" for subject, _ in began)
        await insist(bus, streams.images, envelopes())
        two = Worker(bus, subscription(bus, streams, journal.begin), name="two")
        async with TaskGroup() as tasks:
            await _struck(fault, process, step)
            running = tasks.create_task(two.run())
            if sign == "SIGSTOP":
                await asyncio.sleep(2 * LEASE_SECONDS)
                process.send_signal(signal.SIGCONT)
                woken.set()
            found = await settle(bus, streams)
            if sign == "SIGSTOP":
                await asyncio.sleep(0.5 * LEASE_SECONDS)  # the old worker gets its chance to do harm
                found = await settle(bus, streams)
            await two.drain(1.0)
            await running
    seconds = _delays(began, journal.began, struck_at)
    injected = fault.injected.is_set()
    return FaultResult(
        f"{step} {when} {sign}",
        injected,
        found,
        extra_runs([*began, *journal.began]),
        seconds if injected and sign == "SIGKILL" else [],
        seconds if injected and sign == "SIGTERM" else [],
    )


async def _struck(fault: Fault, process: asyncio.subprocess.Process, step: str) -> None:
    """Return when the fault has struck, or when it is clear that it will not: then it is reported so."""
    try:
        if step == "release":
            async with asyncio.timeout(5 * LEASE_SECONDS):
                await fault.came["renew"].wait()  # the long one is at work then
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5 * LEASE_SECONDS):
            await fault.injected.wait()
    except TimeoutError:
        return


def _delays(before: list[tuple[str, float]], after: list[tuple[str, float]], struck_at: float) -> list[float]:
    """Seconds from the signal to the second run of what the child was working on."""
    interrupted = {subject for subject, _ in before}
    firsts: dict[str, float] = {}
    for subject, moment in after:
        if subject in interrupted:
            firsts.setdefault(subject, moment - struck_at)
    return [seconds for subject, seconds in firsts.items() if subject == "long" and seconds > 0]


@asynccontextmanager
async def child(url: str, prefix: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[tuple[str, float]]]]:
    """The worker process and what it says it began."""
    began: list[tuple[str, float]] = []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.faults.process", url, prefix, stdout=asyncio.subprocess.PIPE
    )

    async def listen() -> None:
        assert process.stdout is not None
        async for said in process.stdout:
            heard = json.loads(said)
            began.append((heard["began"], heard["at"]))

    listening = asyncio.create_task(listen())
    try:
        yield process, began
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


async def work(url: str, prefix: str) -> None:
    """What the child does: one worker, drained by SIGTERM."""

    def begin(subject: str) -> None:
        os.write(1, line(began=subject, at=time.time()).encode())

    async with RedisBus.open(url, timeout_seconds=TIMEOUT_SECONDS) as bus:
        worker = Worker(bus, subscription(bus, Streams(prefix), begin, long_seconds=4 * LEASE_SECONDS), name="child")
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
        async with TaskGroup() as tasks:
            tasks.create_task(worker.run())
            await asked.wait()
            await worker.drain(0.1)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2]))
