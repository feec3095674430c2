"""Chunks out of threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from services.adapters.chunk_streams import from_thread
from services.errors import LayerUnreadable


async def test_chunks_come_in_order_and_end() -> None:
    """What the generator gives is what the consumer gets."""
    pieces = [bytes([number]) * 1000 for number in range(50)]
    async with from_thread(lambda: iter(pieces)) as chunks:
        assert [chunk async for chunk in chunks] == pieces
        assert [chunk async for chunk in chunks] == []


async def test_an_error_comes_after_the_chunks_before_it() -> None:
    """The reader's error is the consumer's."""

    def broken() -> Iterator[bytes]:
        yield b"first"
        raise LayerUnreadable("gone")

    async with from_thread(broken) as chunks:
        assert await anext(chunks) == b"first"
        for _ in range(2):
            with pytest.raises(LayerUnreadable, match="gone"):
                await anext(chunks)


async def test_reading_stays_a_few_chunks_ahead() -> None:
    """A slow consumer does not fill the memory, and leaving closes the generator and ends its thread."""
    given: list[int] = []
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                given.append(1)
                yield b"x"
        finally:
            closed.set()

    before = threading.active_count()
    async with from_thread(endless) as chunks:
        for _ in range(10):
            await anext(chunks)
        assert len(given) <= 10 + 6
    assert closed.is_set()
    assert threading.active_count() == before


async def test_cancelling_the_consumer_ends_the_thread() -> None:
    """A cancelled transfer leaves no reader behind."""
    closed = threading.Event()
    reading = asyncio.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.set()

    async def consume() -> None:
        async with from_thread(endless) as chunks:
            async for _ in chunks:
                reading.set()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(reading.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
