"""Lists and live events of the HTTP API on a large installation, with many clients at once.

`python -m bench api [--images N] [--ranges N] [--deployments N] [--clients N] [--seconds S] [--transfers N]`. The API
is a process of its own over a real Redis. What stands where the registry and the engine would be counts connections,
and answers nothing. The clients run in this process, on the same machine: their work is in the numbers too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.api.clients import EventClient, ListClient
from bench.api.page import interactive_ms
from bench.api.records import Filler
from deploy.lab import Lab
from deploy.lab.role_server import RoleServer
from deploy.lab.server import free_port
from events.bus import Outcome, Post
from events.envelope import Envelope
from events.lease import Bus
from events.messages import TransferProgress
from events.redis.bus import RedisBus
from events.streams import Streams

STREAMS = Streams("bench")
KEPT = 100_000
PATHS = (
    "/api/v1/registry/images",
    "/api/v1/registry/images?sort=size&limit=50",
    "/api/v1/registry/images?q=course-42&sort=pushed",
    "/api/v1/deployments?state=running",
    "/api/v1/ranges?sort=images",
    "/api/v1/registry/stats",
    "/api/v1/deployments?range_id=range-7",
    "/api/v1/pushes",
)
_STEP_SECONDS = 0.25


@dataclass
class Door:
    """Where the registry or the engine would be."""

    port: int
    connections: int = 0


@asynccontextmanager
async def door() -> AsyncIterator[Door]:
    """A port that counts who comes."""
    opened = Door(free_port())

    def came(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.connections += 1
        writer.close()

    server = await asyncio.start_server(came, "127.0.0.1", opened.port)
    async with server:
        yield opened


def main(argv: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench api", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000, help="images in the registry (%(default)s)")
    parser.add_argument("--ranges", type=int, default=500, help="ranges (%(default)s)")
    parser.add_argument("--deployments", type=int, default=2_000, help="deployments (%(default)s)")
    parser.add_argument("--clients", type=int, default=50, help="clients at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each part runs (%(default)s)")
    parser.add_argument("--transfers", type=int, default=300, help="transfers that tell progress (%(default)s)")
    options = parser.parse_args(list(argv))
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder, Lab(folder) as lab:
        return asyncio.run(_measured(lab, options))


async def _measured(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    redis = lab.redis()
    async with RedisBus.open(redis.url) as bus, door() as registry, door() as engine:
        _say("writing the records")
        filler = Filler(bus, STREAMS)
        await filler.fill(images=options.images, ranges=options.ranges, deployments=options.deployments)
        port = free_port()
        settings = {
            "redis_url": redis.url,
            "key_prefix": STREAMS.prefix,
            "api_listen": f"127.0.0.1:{port}",
            "registry_url": f"http://127.0.0.1:{registry.port}",
            "host_engine_url": f"tcp://127.0.0.1:{engine.port}",
        }
        api = RoleServer("api", lab.place("api"), lab.mark, roles=["api"], settings=settings)
        lab.start(api)  # from this thread: a child ends with the thread that started it
        await _complete(port, options.images)
        before = registry.connections, engine.connections
        lists = await _lists(port, options.clients, options.seconds)
        events = await _events(bus, port, options.clients, options.seconds, options.transfers)
        listing = {
            "registry_requests": registry.connections - before[0],
            "engine_requests": engine.connections - before[1],
        }
        peak_bytes = _peak(api.pid)
        _say("a browser opens the page")  # which asks how the registry and the engine are
        return {
            **lists,
            **events,
            **listing,
            "page_interactive_ms": await interactive_ms(port),
            "api_peak_rss_bytes": peak_bytes,
            "clients": options.clients,
            "images": options.images,
            "ranges": options.ranges,
            "deployments": options.deployments,
            "cores": os.cpu_count(),
            "ok": not lists["problems"] and not events["lost"],
        }


async def _complete(port: int, images: int) -> None:
    """Wait until the API has read everything, its last records too (`as_of`)."""
    wanted = f'"total":{images},'.encode()
    async with asyncio.timeout(120):
        while True:
            with suppress(OSError):  # it runs, and does not listen yet
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(
                    b"GET /api/v1/registry/images?limit=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
                )
                found = await reader.read()
                writer.close()
                if wanted in found and b'"as_of":null' not in found:
                    return
            await asyncio.sleep(0.2)


async def _lists(port: int, clients: int, seconds: float) -> dict[str, Any]:
    _say(f"{clients} clients ask for lists")
    began = perf_counter()
    asking = [ListClient("127.0.0.1", port) for _ in range(clients)]
    turned = [[*PATHS[number % len(PATHS) :], *PATHS[: number % len(PATHS)]] for number in range(clients)]
    await asyncio.gather(*(one.run(paths, began + seconds) for one, paths in zip(asking, turned, strict=True)))
    took = perf_counter() - began
    times = sorted(second for one in asking for second in one.seconds)
    return {
        "requests_per_second": round(len(times) / took, 1),
        "list_p50_ms": round(times[len(times) // 2] * 1000, 1),
        "list_p99_ms": round(times[int(len(times) * 0.99)] * 1000, 1),
        "problems": sum(one.problems for one in asking),
    }


async def _events(bus: Bus, port: int, clients: int, seconds: float, transfers: int) -> dict[str, Any]:
    _say(f"{clients} clients listen to {transfers} transfers")
    listening = [EventClient("127.0.0.1", port, ends=transfers) for _ in range(clients)]
    tasks = [asyncio.create_task(one.run()) for one in listening]
    await asyncio.gather(*(one.ready.wait() for one in listening))
    began = perf_counter()
    steps = int(seconds / _STEP_SECONDS)
    for step in range(steps):
        await asyncio.gather(*(bus.commit(_progress(number, step, steps)) for number in range(transfers)))
        await asyncio.sleep(max(began + (step + 1) * _STEP_SECONDS - perf_counter(), 0))
    async with asyncio.timeout(60):
        await asyncio.gather(*(one.complete.wait() for one in listening))
    took = perf_counter() - began
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    most = max(one.updates for one in listening)
    lost = sum(most - one.updates for one in listening) + sum(one.resets for one in listening)
    return {
        "sse_updates_per_second": round(min(one.updates for one in listening) / took, 1),
        "sse_deliveries_per_second": round(sum(one.updates for one in listening) / took, 1),
        "sse_published_per_second": round(transfers * steps / took, 1),
        "lost": lost,
    }


def _progress(number: int, step: int, steps: int) -> Outcome:
    ended = step == steps - 1
    message = TransferProgress(
        transfer_id=f"d{number}.0.1",
        reference="docker.io/training/course-01:1",
        kind="pull",
        phase="done" if ended else "downloading",
        range_id=f"range-{number}",
        done_bytes=step * 1_000_000,
        total_bytes=steps * 1_000_000,
    )
    envelope = Envelope(message=message, source="agent@bench", subject=f"range-{number}")
    return Outcome(posts=(Post(STREAMS.progress, envelope, keep=KEPT),))


def _peak(pid: int) -> int:
    """The most memory that a process ever held, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
