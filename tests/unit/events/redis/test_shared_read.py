"""Waits of several workers over one blocking read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import pytest

from events.bus import BusUnavailable
from events.redis.shared_read import SharedRead


class Server:
    """Counts reads; a read ends with what `answer` is given."""

    def __init__(self) -> None:
        self.reads: list[Mapping[str, str]] = []
        self.answer: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    async def read(self, places: Mapping[str, str], seconds: float) -> list[str]:
        self.reads.append(places)
        await asyncio.wait((self.answer,), timeout=seconds)
        return self.answer.result() if self.answer.done() else []


async def test_those_who_wait_for_the_same_share_a_read() -> None:
    """Each gets the news of its own streams; one that wants to see earlier entries has a read of its own."""
    server = Server()
    shared = SharedRead(server.read)
    wanted = [{"a": "5-1", "b": "0-0"}, {"a": "5-1"}, {"a": "6-0"}, {"a": "5-0"}, {"c": "0-0"}]
    waits = [asyncio.create_task(shared.wait(places, 5.0)) for places in wanted]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert server.reads == [wanted[0], wanted[3], wanted[4]]
    server.answer.set_result(["b", "a"])
    assert await asyncio.gather(*waits) == [["b", "a"], ["a"], ["a"], ["a"], []]


async def test_a_read_that_nobody_waits_for_any_more_is_ended() -> None:
    """As long as one waits it goes on; the next one who comes begins another."""
    server = Server()
    shared = SharedRead(server.read)
    first, second = (asyncio.create_task(shared.wait({"a": "0-0"}, 5.0)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    third = asyncio.create_task(shared.wait({"a": "0-0"}, 0.01))
    assert await third == []
    assert len(server.reads) == 1
    second.cancel()
    await asyncio.sleep(0.01)
    assert await shared.wait({"a": "0-0"}, 0.01) == []
    assert len(server.reads) == 2


async def test_everybody_who_waits_is_told_that_redis_is_away() -> None:
    """And the next read is a new one."""
    server = Server()
    shared = SharedRead(server.read)
    waits = [asyncio.create_task(shared.wait({"a": "0-0"}, 5.0)) for _ in range(2)]
    await asyncio.sleep(0.01)
    server.answer.set_exception(BusUnavailable("Redis is unreachable"))
    for wait in waits:
        with pytest.raises(BusUnavailable):
            await wait


async def test_closing_waits_for_reads_that_miss_a_cancellation() -> None:
    """A read that swallows its first cancellation still holds a connection; when `close` returns, none is left."""
    ended = asyncio.Event()

    async def read(places: Mapping[str, str], seconds: float) -> list[str]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(seconds)
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.set()
        return []

    shared = SharedRead(read)
    wait = asyncio.create_task(shared.wait({"a": "0-0"}, 5.0))
    await asyncio.sleep(0.01)
    wait.cancel()
    await asyncio.wait((wait,))
    assert not ended.is_set()
    await shared.close()
    assert ended.is_set()
