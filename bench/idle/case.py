"""Idle cost: connections, scripts and processor time of Redis that agents take which have nothing to do.

`python -m bench idle --json [--ranges 50] [--seconds 60]`

Redis is real, and so are the agents, each with the client and connections of its own that an agent without a gateway
has; their engines are fakes, and 500 agents share a process. Behind a range gateway an agent has no connection to
Redis at all. Looks grow longer while nothing happens, so what is measured begins when they have grown.

    connections_per_range, evalsha_per_range_second, redis_cpu_ms_per_range_second
    redis_core_used                 of one core, by all of them
    agents_cpu_ms_per_range_second  what the agents themselves compute
    ceiling_ranges_by_connections   with Redis's maxclients of 10,000, 100 left for services
    ceiling_ranges_by_processor     with Redis's one core
    hop_ms_p50                      from a publish to its handler, with all agents idle beside it
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from bench.idle.agents import idle_agents, raise_open_files
from deploy.lab import Lab
from events.bus import NOTHING, Delivery, Outcome
from events.envelope import Envelope
from events.messages import DeploymentAdvance
from events.redis.bus import RedisBus
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.worker.worker import Worker
from services.runtime.telemetry import set_up

PREFIX = "idle"
#: Until looks have grown to their longest.
WARM_SECONDS = 30.0
HOPS = 50
AT_MOST = {
    "connections_per_range": 2.0,
    "redis_cpu_ms_per_range_second": 0.1,
    "evalsha_per_range_second": 1.0,
    "hop_ms_p50": 2.0,
    "redis_core_used": 0.25,
}


async def _figures(client: redis.Redis) -> dict[str, float]:
    """Connections, calls of EVALSHA and processor seconds of Redis by now, without this client's."""
    info = await client.info("everything")
    called = info.get("cmdstat_evalsha", {}).get("calls", 0)
    cpu = info["used_cpu_user"] + info["used_cpu_sys"]
    return {"connections": info["connected_clients"] - 1, "evalsha": called, "cpu": cpu, "at": time.monotonic()}


async def _hops(url: str) -> float:
    """The median of milliseconds from a publish to its handler."""
    streams, arrived = Streams("hop"), dict[str, float]()
    there = asyncio.Event()

    async def handle(delivery: Delivery[DeploymentAdvance]) -> Outcome:
        arrived[delivery.message.deployment_id] = time.perf_counter()
        there.set()
        return NOTHING

    subscription = Subscription(
        group="deployer",
        streams=lambda: (streams.deployer,),
        handlers=Handlers().on(DeploymentAdvance, handle, key=None, give_up=None),
        dead_stream=streams.dead,
    )
    taken = []
    async with RedisBus.open(url, streams=streams) as bus:
        worker = asyncio.create_task(Worker(bus, subscription, name="hop").run())
        for number in range(HOPS):
            await asyncio.sleep(0.1)
            there.clear()
            message = DeploymentAdvance(deployment_id=f"d{number}")
            begun = time.perf_counter()
            await bus.publish(streams.deployer, Envelope(message=message, source="bench", subject="hop"))
            async with asyncio.timeout(10):
                await there.wait()
            taken.append(1000 * (arrived[f"d{number}"] - begun))
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    return statistics.median(taken)


async def _measure(url: str, *, ranges: int, seconds: float) -> dict[str, Any]:
    set_up(level="error", log_format="json")
    client = redis.from_url(url)
    async with client:
        before = await _figures(client)
        async with idle_agents(url, PREFIX, ranges) as processes:
            await asyncio.sleep(WARM_SECONDS)
            first, worked = await _figures(client), sum(map(_cpu_seconds, processes))
            await asyncio.sleep(seconds)
            last, worked = await _figures(client), sum(map(_cpu_seconds, processes)) - worked
            hop = await _hops(url)
    passed = last["at"] - first["at"]
    per = ranges * passed
    connections = (last["connections"] - before["connections"]) / ranges
    cpu = 1000 * (last["cpu"] - first["cpu"]) / per
    return {
        "ranges": ranges,
        "connections_per_range": round(connections, 2),
        "evalsha_per_range_second": round((last["evalsha"] - first["evalsha"]) / per, 3),
        "redis_cpu_ms_per_range_second": round(cpu, 4),
        "redis_core_used": round((last["cpu"] - first["cpu"]) / passed, 3),
        "agents_cpu_ms_per_range_second": round(1000 * worked / per, 3),
        "ceiling_ranges_by_connections": int(9900 / connections) if connections else 0,
        "ceiling_ranges_by_processor": int(1000 / cpu) if cpu else 0,
        "hop_ms_p50": round(hop, 2),
        "load": round(os.getloadavg()[0], 1),
    }


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(argv: Sequence[str]) -> dict[str, Any]:
    """One object, with `ok` if all is as it should be."""
    parser = argparse.ArgumentParser(
        prog="bench idle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranges", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="a minute has all that is done")
    chosen = parser.parse_args(argv)
    sys.stderr.write(f"{chosen.ranges} agents\n")
    raise_open_files()
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as folder, Lab(Path(folder)) as lab:
        figures = asyncio.run(_measure(lab.redis().url, ranges=chosen.ranges, seconds=chosen.seconds))
    reached = {key: figures[key] <= most for key, most in AT_MOST.items()}
    return {"ok": all(reached.values()), **figures, "reached": reached}
