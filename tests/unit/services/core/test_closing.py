"""Streams that are left early close what they wrap."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from services.core.closing import closing


class Source:
    """A generator of chunks that notes when it is closed."""

    def __init__(self) -> None:
        self.closed = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"x"
        finally:
            self.closed = True


async def wrapped(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    async with closing(chunks):
        async for chunk in chunks:
            yield chunk


async def test_closing_the_wrapper_closes_the_source() -> None:
    """However deep it lies."""
    source = Source()
    outer = wrapped(wrapped(source.chunks()))
    assert await anext(outer) == b"x"
    await outer.aclose()
    assert source.closed


async def test_an_error_of_the_block_closes_the_source() -> None:
    """And comes out as it is."""
    source = Source()

    async def fail() -> None:
        chunks = source.chunks()
        async with closing(chunks):
            await anext(chunks)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert source.closed


async def test_other_iterators_are_left_alone() -> None:
    """They have no `aclose`; who opened them closes them."""

    class Once(AsyncIterator[bytes]):
        async def __anext__(self) -> bytes:
            return b"x"

    one = Once()
    async with closing(one):
        assert await anext(one) == b"x"
