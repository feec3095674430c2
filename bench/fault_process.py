"""Faults of a worker process: it is killed, stopped or asked to end exactly before or after one of its commands.

The worker is a child whose connections go through the proxy; the proxy sends the signal at the chosen request.
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

from bench.fault_proxy import Fault, Proxy
from bench.fault_story import (
    LEASE_SECONDS,
    TIMEOUT_SECONDS,
    Journal,
    envelopes,
    extra_runs,
    insist,
    line,
    subscription,
    verdict,
)
from bench.fault_wire import Told
from events.redis_bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker import Worker

STEPS = ("take", "board", "renew", "finish", "defer", "bury", "recover", "wait")
SIGNS = ("SIGKILL", "SIGSTOP", "SIGTERM")


def cases() -> list[tuple[str, str, str]]:
    return [(step, when, sign) for step in STEPS for when in ("before", "after") for sign in SIGNS]


async def tell(address: tuple[str, int], prefix: str, step: str, when: str, sign: str) -> Told:
    """Worker one is a child; worker two, in this process, sees what is left of its work."""
    streams = Streams(prefix)
    journal, struck_at = Journal(), 0.0
    fault = Fault(step)
    proxy = Proxy(address, fault)
    direct = f"redis://{address[0]}:{address[1]}/0"
    async with proxy.running(), RedisBus.open(direct) as bus, child(proxy.url, prefix) as (process, began):

        async def strike() -> None:
            nonlocal struck_at
            struck_at = time.time()
            process.send_signal(getattr(signal, sign))

        setattr(fault, when, strike)
        await insist(bus, streams.images, envelopes())
        two = Worker(bus, subscription(streams, journal.begin), name="two")
        async with TaskGroup() as tasks:
            try:
                async with asyncio.timeout(5 * LEASE_SECONDS):
                    await fault.injected.wait()
            except TimeoutError:
                pass  # not struck: reported so
            running = tasks.create_task(two.run())
            if sign == "SIGSTOP":
                await asyncio.sleep(2 * LEASE_SECONDS)
                process.send_signal(signal.SIGCONT)
            found = await verdict(bus, streams)
            if sign == "SIGSTOP":
                await asyncio.sleep(0.5 * LEASE_SECONDS)  # the old worker gets its chance to do harm
                found = await verdict(bus, streams)
            await two.drain(1.0)
            await running
    seconds = _delays(began, journal.began, struck_at)
    injected = fault.injected.is_set()
    return Told(
        f"{step} {when} {sign}",
        injected,
        found,
        extra_runs([*began, *journal.began]),
        seconds if injected and sign == "SIGKILL" else [],
        seconds if injected and sign == "SIGTERM" else [],
    )


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
        sys.executable, "-m", "bench.fault_process", url, prefix, stdout=asyncio.subprocess.PIPE
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
        worker = Worker(bus, subscription(Streams(prefix), begin, long_seconds=4 * LEASE_SECONDS), name="child")
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
        async with TaskGroup() as tasks:
            tasks.create_task(worker.run())
            await asked.wait()
            await worker.drain(0.1)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2]))
