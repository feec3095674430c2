"""Chunks out of threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from services.adapters import chunk_streams
from services.adapters.chunk_streams import from_thread
from services.errors import LayerUnreadable
from services.ports import Chunks, ThreadChunks


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


async def test_the_reading_thread_hands_chunks_on_by_itself() -> None:
    """In order, not on the event loop's thread, and the reader's error comes after the chunks before it."""
    pieces = [bytes([number]) * 10 for number in range(50)]
    found: list[bytes] = []
    threads: set[int] = set()

    def read() -> Iterator[bytes]:
        yield from pieces
        raise LayerUnreadable("gone")

    def take(chunk: bytes) -> None:
        found.append(chunk)
        threads.add(threading.get_ident())

    async with from_thread(read) as chunks:
        with pytest.raises(LayerUnreadable, match="gone"):
            await in_thread(chunks).each(take)
    assert found == pieces
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_a_step_that_fails_ends_the_reading() -> None:
    """Its error is raised, and the generator is closed."""
    closed = threading.Event()
    taken: list[bytes] = []

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.set()

    def take(chunk: bytes) -> None:
        taken.append(chunk)
        if len(taken) == 3:
            raise OSError("no room")

    async with from_thread(endless) as chunks:
        with pytest.raises(OSError, match="no room"):
            await in_thread(chunks).each(take)
    assert len(taken) == 3
    assert closed.is_set()


async def test_chunks_are_handed_on_in_one_way_only() -> None:
    """Whoever asked for a chunk gets the others one by one as well: nothing could come out of order."""
    async with from_thread(lambda: iter([b"1", b"2"])) as chunks:
        assert await anext(chunks) == b"1"
        with pytest.raises(RuntimeError, match="one by one"):
            await in_thread(chunks).each(lambda chunk: None)
        assert [chunk async for chunk in chunks] == [b"2"]


async def test_a_reader_that_nobody_asked_does_not_start() -> None:
    """No thread, and nothing was read."""
    given: list[int] = []

    def read() -> Iterator[bytes]:
        given.append(1)
        yield b"x"

    async with from_thread(read):
        pass
    assert given == []


async def test_cancelling_ends_a_thread_that_hands_chunks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the step it is in; one whose step never returns is left behind, and the caller goes on."""
    started, never = threading.Event(), threading.Event()

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x"

    def hang(chunk: bytes) -> None:
        started.set()
        never.wait(30)

    async def move() -> None:
        async with from_thread(endless) as chunks:
            await in_thread(chunks).each(hang)

    monkeypatch.setattr(chunk_streams, "_STOP_SECONDS", 0.05)
    task = asyncio.create_task(move())
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    never.set()


def in_thread(chunks: Chunks) -> ThreadChunks:
    assert isinstance(chunks, ThreadChunks)
    return chunks
