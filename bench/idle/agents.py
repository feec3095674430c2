"""Agents without work: real ones, each with the client and connections of an agent without a gateway, on fake engines.

They run in processes of their own, so that what is measured beside them waits for Redis and not for them.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path

from services.adapters.memory_engine import MemoryEngine
from services.adapters.openers import Adapters, open_bus
from services.runtime.shutdown import Stop
from services.runtime.telemetry import set_up
from services.serving import run
from services.settings import Settings

ROOT = Path(__file__).parents[2]
#: So many agents share a process: some hundred milliseconds of each second for one that looks after all of them.
TOGETHER = 500
#: Between two that start: an installation's ranges do not come up in one moment either.
APART_SECONDS = 0.01
_READY = b"started\n"


def raise_open_files() -> None:
    """As many open files as this user may have: two connections for each agent."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def agents(url: str, prefix: str, first: int, count: int) -> None:
    """Run `count` agents, of ranges `idle-FIRST` and on, until cancelled; says when all were started."""
    set_up(level="error", log_format="json")
    raise_open_files()
    tasks = []
    for number in range(first, first + count):
        tasks.append(asyncio.create_task(_agent(url, prefix, f"idle-{number:05}")))
        await asyncio.sleep(APART_SECONDS)
    sys.stdout.buffer.write(_READY)
    sys.stdout.flush()
    await asyncio.gather(*tasks)


async def _agent(url: str, prefix: str, range_id: str) -> None:
    settings = Settings(redis_url=url, key_prefix=prefix, range_id=range_id, drain_seconds=0.0)
    engine = MemoryEngine(engine_id=range_id)
    adapters = Adapters(bus=open_bus, engine=lambda _, __: nullcontext(engine), host=range_id)
    await run(settings, ["agent"], Stop(), adapters)


@asynccontextmanager
async def idle_agents(url: str, prefix: str, count: int) -> AsyncIterator[list[int]]:
    """So many agents, all started, in as many processes as needed, whose ids it gives; leaving kills them."""
    async with AsyncExitStack() as stack:
        processes = []
        for first in range(0, count, TOGETHER):
            few = min(TOGETHER, count - first)
            words = f"{url!r}, {prefix!r}, {first}, {few}"
            program = f"import asyncio; from bench.idle.agents import agents; asyncio.run(agents({words}))"
            processes.append(await stack.enter_async_context(_process(program)))
        async with asyncio.timeout(60 + count * APART_SECONDS * 10):
            for process in processes:
                assert process.stdout is not None
                assert await process.stdout.readline() == _READY
        yield [process.pid for process in processes]


@asynccontextmanager
async def _process(program: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
