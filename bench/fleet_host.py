"""The host of a fleet, a process of its own: deployer and registry-pusher on twins of host engine and registry."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from events.redis_bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker import Worker
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_layers import MemoryLayers
from services.adapters.memory_registry import MemoryRegistry
from services.core.deployment import Policy
from services.deployer import Deployer
from services.pushing.image_push import ImagePush
from services.pushing.layer_forms import LayerForms
from services.pushing.layer_push import LayerPush
from services.registry_pusher import RegistryPusher
from services.telemetry import set_up

ROOT = Path(__file__).parent.parent
PREFIX = "fleet"
READY_WORD = b"listening\n"


async def host(url: str, ranges: int, images: int) -> None:
    """The other process: deployer, registry-pusher, and the twins of host engine and registry."""
    set_up(level="error", log_format="json")
    engine, registry, streams = MemoryEngine(engine_id="host"), MemoryRegistry(), Streams(PREFIX)
    for number in range(images):
        layers = [bytes([layer, number]) * 1000 for layer in range(8)]
        engine.add_image(f"image-{number}:1", layers)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with RedisBus.open(url, streams=streams, timeout_seconds=30.0) as bus:
        role = Deployer(
            speaker=bus,
            engine=engine,
            registry=registry,
            streams=streams,
            source="deployer@fleet",
            tar_url="http://127.0.0.1:1",
            policy=Policy(pulls_per_host=max(ranges // 4, 8)),
            slots=32,
        )
        forms, sources = LayerForms(speaker=bus, prefix=PREFIX), [MemoryLayers(engine)]
        pusher = RegistryPusher(
            push=ImagePush(
                engine=engine,
                registry=registry,
                sources=sources,
                layers=LayerPush(registry=registry, sources=sources, forms=forms),
                engine_registry=registry.address,
            ),
            registry=registry,
            forms=forms,
            streams=streams,
            source="registry-pusher@fleet",
            auto_push=_never,
        )
        workers = [Worker(bus, one) for one in (*pusher.subscriptions(), *role.subscriptions())]
        async with TaskGroup() as tasks:
            running = [tasks.create_task(one) for one in (role.run(), *(worker.run() for worker in workers))]
            sys.stdout.buffer.write(READY_WORD)
            sys.stdout.flush()
            await stop.wait()
            for task in running:
                task.cancel()
    sys.stdout.write(
        json.dumps({"uploads": len(registry.uploaded), "blobs": len({one[:2] for one in registry.uploaded})}) + "\n"
    )


async def _never() -> bool:
    return False


@asynccontextmanager
async def other_process(url: str, ranges: int, images: int) -> AsyncIterator[asyncio.subprocess.Process]:
    program = f"import asyncio; from bench.fleet_host import host; asyncio.run(host({url!r}, {ranges}, {images}))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            assert process.stdout is not None
            assert await process.stdout.readline() == READY_WORD
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
