"""Progress counters of a push."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from services.adapters.chunk_streams import from_thread
from services.ports import OpenLayer, ThreadChunks
from services.registry_pusher.progress import Counted, ProgressCounters


async def test_chunks_that_a_thread_hands_on_are_counted() -> None:
    """In whichever way they are read; taken back, nothing is left of them."""
    for in_thread in (True, False):
        counters = ProgressCounters()
        async with from_thread(lambda: iter([b"12", b"345"])) as chunks:
            counted = Counted(counters, OpenLayer("sha256:a", 5, chunks))
            passing = counted.chunks()
            assert isinstance(passing, ThreadChunks)
            if in_thread:
                await passing.each(lambda chunk: None)
            else:
                assert [chunk async for chunk in passing] == [b"12", b"345"]
            assert (counters.done_bytes, counters.layers["sha256:a"].done_bytes, counted.read_bytes) == (5, 5, 5)
            counted.take_back()
            assert counters.done_bytes == 0


async def test_nothing_is_counted_after_a_caller_has_left() -> None:
    """The thread may be in a chunk just then, whose bytes were taken back already."""
    counters, within, go_on = ProgressCounters(), threading.Event(), threading.Event()

    def read() -> Iterator[bytes]:
        yield b"12"

    def step(chunk: bytes) -> None:
        within.set()
        go_on.wait(10)

    async with from_thread(read) as chunks:
        counted = Counted(counters, OpenLayer("sha256:a", 2, chunks))
        passing = counted.chunks()
        assert isinstance(passing, ThreadChunks)
        moving = asyncio.create_task(passing.each(step))
        await asyncio.to_thread(within.wait, 10)
        moving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await moving
        counted.take_back()
        go_on.set()
    await asyncio.sleep(0)
    assert counters.done_bytes == 0
