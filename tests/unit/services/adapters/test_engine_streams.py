"""Lines of an engine's answer, however they are cut, and lines without an end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import cast

import pytest

from services.adapters.engine_streams import LINE_BYTES, LineStream, Reply
from services.errors import TransferFailed


class Said:
    """What a reply gives, chunk by chunk, and how many were asked for."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self.asked = 0

    async def next_bytes(self) -> bytes:
        """As `Reply.next_bytes`."""
        self.asked += 1
        return next(self._chunks, b"")


def lines(said: Said) -> LineStream:
    """The stream under test."""
    return LineStream(cast(Reply, said), "pull a:1", "tcp://range:2375")


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_lines_are_the_same_however_they_are_cut(size: int) -> None:
    """Empty ones are none, and the last needs no end."""
    text = b'{"status":"one"}\r\n\n{"status":"two"}\n\r\n{"status":"three"}'
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    assert [line.status async for line in lines(Said(chunks))] == ["one", "two", "three"]


async def test_a_line_without_an_end_is_refused_once_it_is_too_long() -> None:
    """After a megabyte, not when the memory is full; chunks are not copied again with each that comes."""
    said = Said(itertools.repeat(b"x" * 4096))
    with pytest.raises(TransferFailed, match="a line of more than"):
        await anext(lines(said))
    assert said.asked == LINE_BYTES // 4096 + 1


async def test_a_long_line_with_an_end_is_read() -> None:
    """Up to the limit."""
    status = "s" * (LINE_BYTES - 100)
    text = b'{"status":"%b"}\n' % status.encode()
    chunks = [text[start : start + 5000] for start in range(0, len(text), 5000)]
    assert [line.status async for line in lines(Said(chunks))] == [status]


@pytest.mark.parametrize("running", [False, True])
async def test_a_body_that_is_not_read_to_its_end_is_closed(running: bool) -> None:
    """Also one whose reader was cancelled a moment ago and still has to leave it."""
    closed = False

    async def body() -> AsyncGenerator[bytes, None]:
        nonlocal closed
        try:
            yield b"x"
            await asyncio.sleep(60)
        finally:
            closed = True

    reply = Reply("load", "tcp://range:2375", 60.0)
    fed = reply.feed(body())
    assert await anext(fed) == b"x"
    if running:
        reading = asyncio.ensure_future(anext(fed))
        await asyncio.sleep(0)
        reading.cancel()
    await reply.end_body()
    assert closed
