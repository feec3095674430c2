"""The host of a fleet, a process of its own: deployer and registry-pusher on fakes of host engine and registry."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from events.redis.bus import RedisBus
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_layers import MemoryLayers
from services.adapters.memory_registry import MemoryRegistry
from services.adapters.openers import Adapters
from services.runtime.telemetry import set_up
from services.serving import serve
from services.settings import Settings

ROOT = Path(__file__).parents[2]
PREFIX = "fleet"
READY_WORD = b"listening\n"


async def host(url: str, images: int) -> None:
    """The other process: deployer and registry-pusher as `services.bootstrap` composes them, on fakes of the host."""
    set_up(level="error", log_format="json")
    engine, registry = MemoryEngine(engine_id="host"), MemoryRegistry()
    for number in range(images):
        layers = [bytes([layer, number]) * 1000 for layer in range(8)]
        engine.add_image(f"image-{number}:1", layers)
    settings = Settings(
        redis_url=url,
        key_prefix=PREFIX,
        registry_url=f"http://{registry.address}",
        tar_url="http://127.0.0.1:1",
        auto_push=False,
        drain_seconds=0.0,
    )
    adapters = Adapters(
        bus=lambda _: RedisBus.open(url, streams=Streams(PREFIX), timeout_seconds=30.0),
        engine=lambda _, __: nullcontext(engine),
        registry=lambda _: nullcontext(registry),
        layer_sources=lambda _, __: [MemoryLayers(engine)],
    )
    sys.stdout.buffer.write(READY_WORD)
    sys.stdout.flush()
    await serve(settings, ["deployer", "registry-pusher"], adapters=adapters)
    sys.stdout.write(
        json.dumps({"uploads": len(registry.uploaded), "blobs": len({one[:2] for one in registry.uploaded})}) + "\n"
    )


@asynccontextmanager
async def other_process(url: str, images: int) -> AsyncIterator[asyncio.subprocess.Process]:
    program = f"import asyncio; from bench.fleet.host import host; asyncio.run(host({url!r}, {images}))"
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
