"""A worker that is stopped while its first connection to a real Redis is being made."""

from __future__ import annotations

import asyncio
import gc

import pytest

from events.bus import Delivery, Outcome
from events.messages import PushRequested
from events.redis.bus import RedisBus
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.worker.worker import Worker
from tests.laboratory import RedisServer


async def nothing(delivery: Delivery[PushRequested]) -> Outcome:
    return Outcome()


@pytest.mark.parametrize("delay_ms", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0])
async def test_a_worker_cancelled_while_it_connects_ends(
    redis_server: RedisServer, key_prefix: str, delay_ms: float
) -> None:
    """The library's `wait_for` may swallow the cancellation on Python 3.11; the worker ends with the next reply.

    No connection outlives the bus: one that did would be reported by the collection at the end.
    """
    streams = Streams(key_prefix)
    hears = Subscription(
        group="g",
        handlers=Handlers().on(PushRequested, nothing, key=None, give_up=None),
        streams=lambda: [streams.images],
        dead_stream=streams.dead,
    )
    for _ in range(3):
        async with RedisBus.open(redis_server.url, streams=streams) as bus:
            running = asyncio.create_task(Worker(bus, hears).run())
            await asyncio.sleep(delay_ms / 1000)
            running.cancel()
            done, _ = await asyncio.wait([running], timeout=5)
            assert done
            assert running.cancelled()
    gc.collect()
