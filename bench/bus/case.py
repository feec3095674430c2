"""Bus throughput and latency: hop, throughput beside a bare redis-py loop, lease renewal, memory.

The bare loop is what one writes by hand in redis-py: XADD, XREADGROUP with the same count, XACK. It promises nothing;
ours publishes once per id, leases, fences and commits an outcome atomically.

With `--replica`, the cost of commits that a replica has to confirm (CYROID_CONFIRM_REPLICAS=1), beside the same
without.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from bench.bus.load import SLOTS, TYPICAL, consume, produce, progress
from deploy.lab import Lab
from events.envelope import Envelope
from events.lease import Holder
from events.redis.bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker

#: What is to be reached: at most, or at least.
AT_MOST = {"hop_ms_p50": 2.0, "hop_ms_p99": 10.0, "renew_16_ms": 1.0, "memory_ratio": 1.1}
AT_LEAST = {"messages_per_second": 3_000, "vs_bare_loop": 0.5}


def main(argv: list[str]) -> dict[str, Any]:
    options = argparse.ArgumentParser(
        prog="bench bus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--messages", type=int, default=20_000, help="per round of throughput")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--hops", type=int, default=500)
    options.add_argument("--memory-messages", type=int, default=1_000_000, help="0 leaves memory out")
    options.add_argument("--replica", action="store_true", help="also with a replica that confirms each commit")
    asked = options.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-bus-") as folder, Lab(Path(folder)) as lab:
        server = lab.redis()
        url = server.url
        figures: dict[str, Any] = asyncio.run(_measure(url, asked))
        if asked.replica:
            replica = lab.redis("replica", replicaof=f"127.0.0.1 {server.port}", repl_diskless_sync_delay="0")
            figures |= asyncio.run(_confirmed(url, asked))
            replica.stop()
        if asked.memory_messages:
            figures |= _memory(url, asked.memory_messages)
    reached = {key: figures[key] <= most for key, most in AT_MOST.items() if key in figures}
    reached |= {key: figures[key] >= least for key, least in AT_LEAST.items() if key in figures}
    return {"ok": all(reached.values()), **figures, "reached": reached}


async def _measure(url: str, asked: argparse.Namespace) -> dict[str, Any]:
    progress("hops")
    hops = await _hops(url, asked.hops)
    ours, bare = [], []
    for number in range(asked.rounds):
        progress(f"throughput, round {number + 1} of {asked.rounds}")
        ours.append(await _ours(url, asked.messages, f"ours{number}"))
        bare.append(await _bare(url, asked.messages, f"bare{number}"))
    renew = await _renew(url)
    ratios = [one / other for one, other in zip(ours, bare, strict=True)]
    return {
        "hop_ms_p50": round(_percentile(hops, 50), 3),
        "hop_ms_p99": round(_percentile(hops, 99), 3),
        "messages_per_second": round(statistics.median(ours)),
        "bare_loop_messages_per_second": round(statistics.median(bare)),
        "vs_bare_loop": round(statistics.median(ratios), 2),
        "renew_16_ms": round(renew, 3),
    }


async def _confirmed(url: str, asked: argparse.Namespace) -> dict[str, Any]:
    """The same with a replica beside, in turn without and with its confirmation of each commit."""
    client = redis.Redis.from_url(url, protocol=3, legacy_responses=False)
    async with client, asyncio.timeout(30):
        while not await client.wait(1, 1000):
            progress("the replica copies")
    hops, speed = dict[int, list[float]](), dict[int, list[float]]({0: [], 1: []})
    for confirm in (0, 1):
        progress(f"hops, {confirm} replicas confirm")
        hops[confirm] = await _hops(url, asked.hops, confirm)
    for number in range(asked.rounds):
        for confirm, found in speed.items():
            progress(f"throughput, {confirm} replicas confirm, round {number + 1} of {asked.rounds}")
            found.append(await _ours(url, asked.messages, f"confirm{confirm}-{number}", confirm))
    ratios = [one / other for one, other in zip(speed[1], speed[0], strict=True)]
    return {
        "replicated_hop_ms_p50": round(_percentile(hops[0], 50), 3),
        "confirmed_hop_ms_p50": round(_percentile(hops[1], 50), 3),
        "confirmed_hop_ms_p99": round(_percentile(hops[1], 99), 3),
        "replicated_messages_per_second": round(statistics.median(speed[0])),
        "confirmed_messages_per_second": round(statistics.median(speed[1])),
        "confirmed_vs_not": round(statistics.median(ratios), 2),
    }


async def _hops(url: str, count: int, confirm: int = 0) -> list[float]:
    """Milliseconds from publish to the handler's first line, one at a time, the worker idle before each."""
    streams = Streams(f"hop{confirm}")
    arrived: dict[str, float] = {}
    there = asyncio.Event()

    def note(envelope: Envelope) -> None:
        arrived[envelope.id] = time.perf_counter()
        there.set()

    found = []
    async with RedisBus.open(url, streams=streams, remember_seconds=60, confirm_replicas=confirm) as bus:
        worker = Worker(bus, consume(streams, note))
        async with TaskGroup() as tasks:
            tasks.create_task(worker.run())
            for _ in range(count + 20):
                envelope = Envelope(message=TYPICAL, source="bench", subject="nginx")
                there.clear()
                started = time.perf_counter()
                await bus.publish(streams.images, envelope)
                async with asyncio.timeout(10):
                    await there.wait()
                found.append((arrived[envelope.id] - started) * 1000)
                await asyncio.sleep(0.003)
            await worker.drain(5)
    return found[20:]


async def _ours(url: str, count: int, prefix: str, confirm: int = 0) -> float:
    """Messages per second: publish → lease → atomic finish, one worker, publisher beside it."""
    streams = Streams(prefix)
    left = count
    done = asyncio.Event()

    def note(_: Envelope) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()

    async with RedisBus.open(url, streams=streams, remember_seconds=60, confirm_replicas=confirm) as bus:
        worker = Worker(bus, consume(streams, note))
        async with TaskGroup() as tasks:
            tasks.create_task(worker.run())
            started = time.perf_counter()
            await produce(bus, streams, count)
            await done.wait()
            await worker.drain(10)
            seconds = time.perf_counter() - started
        (status,) = await bus.groups([streams.images])
    if status.pending or status.lag:
        raise RuntimeError(f"{status.pending} entries were not finished, {status.lag} not delivered")
    return count / seconds


async def _bare(url: str, count: int, stream: str) -> float:
    """Messages per second of the loop one writes by hand, with the same fields."""
    fields: dict[Any, Any] = {
        "id": "0198f0a0-0000-7000-8000-000000000000",
        "type": "image.push_requested.v1",
        "source": "bench",
        "subject": "nginx",
        "time": "2026-01-01T00:00:00.000000Z",
        "correlationid": "0198f0a0-0000-7000-8000-000000000000",
        "data": '{"reference":"docker.io/library/nginx:1.27","why":"auto"}',
    }
    client = redis.Redis.from_url(url, protocol=3, legacy_responses=False)
    reader = redis.Redis.from_url(url, protocol=3, legacy_responses=False)
    async with client, reader:
        await client.xgroup_create(stream, "bare", "0", mkstream=True)

        async def add() -> None:
            for _ in range(count):
                await client.xadd(stream, fields)

        async def read() -> None:
            left = count
            while left:
                reply: Any = await reader.xreadgroup("bare", "one", {stream: ">"}, count=SLOTS, block=200)
                for entries in (reply or {}).values():
                    for entry_id, _ in entries:
                        await reader.xack(stream, "bare", entry_id)
                        left -= 1

        started = time.perf_counter()
        async with TaskGroup() as tasks:
            tasks.create_task(add())
            tasks.create_task(read())
        return count / (time.perf_counter() - started)


async def _renew(url: str) -> float:
    """Median milliseconds of renewing 16 leases in one call."""
    streams = Streams("renew")
    holder = Holder("bench", "one", 30.0)
    async with RedisBus.open(url, streams=streams, remember_seconds=60) as bus:
        await produce(bus, streams, 16)
        leases = (await bus.take(holder, [streams.images], 16)).leases
        seconds = []
        for _ in range(200):
            started = time.perf_counter()
            if await bus.renew([(lease, None) for lease in leases]):
                raise RuntimeError("a lease was lost")
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1000


def _memory(url: str, count: int) -> dict[str, Any]:
    """The resident size of a worker process after `count` messages against after 10,000."""
    progress(f"memory over {count} messages")
    child = subprocess.run(
        [sys.executable, "-m", "bench.bus.load", url, str(count)], stdout=subprocess.PIPE, check=True, timeout=3600
    )
    figures: dict[str, Any] = json.loads(child.stdout)
    return figures


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
