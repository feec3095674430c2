"""Idle cost: connections, scripts and processor time of Redis that agents take which have nothing to do.

`python -m bench idle --json [--ranges 50] [--seconds 40]`

Redis is real, and so are the agents, each with the client and connections of its own that an agent without a gateway
has; their engines are fakes, and all agents are in this process. Behind a range gateway an agent has no connection to
Redis at all. Looks grow longer while nothing happens, so what is measured begins when they have grown.

    connections_per_range, evalsha_per_range_second, redis_cpu_ms_per_range_second
    ceiling_ranges_by_connections   with Redis's maxclients of 10,000, 100 left for services
    ceiling_ranges_by_processor     with Redis's one core
    hop_ms_p50                      from a publish to its handler, with all agents idle beside it
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from deploy.lab import Lab
from events.bus import NOTHING, Delivery, Outcome
from events.envelope import Envelope
from events.messages import DeploymentAdvance
from events.redis.bus import RedisBus
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.worker.worker import Worker
from services.adapters.memory_engine import MemoryEngine
from services.adapters.openers import Adapters, open_bus
from services.runtime.shutdown import Stop
from services.runtime.telemetry import set_up
from services.serving import run
from services.settings import Settings

PREFIX = "idle"
#: Until looks have grown to their longest.
WARM_SECONDS = 30.0
HOPS = 50
AT_MOST = {
    "connections_per_range": 2.0,
    "redis_cpu_ms_per_range_second": 0.1,
    "evalsha_per_range_second": 1.0,
    "hop_ms_p50": 2.0,
}


async def _agent(url: str, number: int) -> None:
    settings = Settings(redis_url=url, key_prefix=PREFIX, range_id=f"range-{number}", drain_seconds=0.0)
    engine = MemoryEngine(engine_id=f"range-{number}")
    adapters = Adapters(bus=open_bus, engine=lambda _, __: nullcontext(engine), host=f"range-{number}")
    await run(settings, ["agent"], Stop(), adapters)


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
    before = await _figures(client)
    agents = [asyncio.create_task(_agent(url, number)) for number in range(ranges)]
    try:
        await asyncio.sleep(WARM_SECONDS + ranges / 20)
        first = await _figures(client)
        await asyncio.sleep(seconds)
        last = await _figures(client)
        hop = await _hops(url)
    finally:
        for agent in agents:
            agent.cancel()
        await asyncio.gather(*agents, return_exceptions=True)
        await client.aclose()
    per = ranges * (last["at"] - first["at"])
    connections = (last["connections"] - before["connections"]) / ranges
    cpu = 1000 * (last["cpu"] - first["cpu"]) / per
    return {
        "ranges": ranges,
        "connections_per_range": round(connections, 2),
        "evalsha_per_range_second": round((last["evalsha"] - first["evalsha"]) / per, 3),
        "redis_cpu_ms_per_range_second": round(cpu, 4),
        "ceiling_ranges_by_connections": int(9900 / connections) if connections else 0,
        "ceiling_ranges_by_processor": int(1000 / cpu) if cpu else 0,
        "hop_ms_p50": round(hop, 2),
    }


def main(argv: Sequence[str]) -> dict[str, Any]:
    """One object, with `ok` if all is as it should be."""
    parser = argparse.ArgumentParser(
        prog="bench idle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranges", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=40.0)
    chosen = parser.parse_args(argv)
    sys.stderr.write(f"{chosen.ranges} agents\n")
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as folder, Lab(Path(folder)) as lab:
        figures = asyncio.run(_measure(lab.redis().url, ranges=chosen.ranges, seconds=chosen.seconds))
    reached = {key: figures[key] <= most for key, most in AT_MOST.items()}
    return {"ok": all(reached.values()), **figures, "reached": reached}
