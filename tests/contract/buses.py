"""The buses that the conformance suite runs against, opened the same way.

What a fake cannot do, and why, is listed in `CANNOT`; everything else in the suite runs on all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import fakeredis

from events.lease import Bus
from events.memory.bus import MemoryBus
from events.redis.bus import RedisBus
from events.redis.client import Commands
from events.streams import Streams

KINDS = ("memory", "fakeredis", "redis")

#: Why the suite does not ask a thing of a fake.
CANNOT = {
    "memory": "one process only: nothing to reconnect to, no script to flush, no permission, no memory limit",
    "fakeredis": (
        "no shebang in scripts, no ACL check in Lua, no INFO, CONFIG or MEMORY, no memory limit, no process to kill"
    ),
}

LIMIT_BYTES = 20_000


@asynccontextmanager
async def open_bus(kind: str, url: Callable[[], str], prefix: str) -> AsyncIterator[Bus]:
    """A bus of the kind; `url` is asked only for the real one."""
    if kind == "memory":
        yield MemoryBus(limit_bytes=LIMIT_BYTES)
    elif kind == "fakeredis":
        client = fakeredis.FakeAsyncRedis(protocol=2, legacy_responses=False)
        client.response_callbacks.clear()
        commands = Commands(client)
        bus = RedisBus(commands, commands, limit_bytes=LIMIT_BYTES, dialect=without_shebang)
        async with commands, bus.running():
            yield bus
    else:
        async with RedisBus.open(url(), streams=Streams(prefix), limit_bytes=LIMIT_BYTES) as real:
            yield real


def without_shebang(script: str) -> str:
    """What fakeredis' Lua understands: its first line as a comment."""
    return script.replace("#!lua", "-- ", 1)
