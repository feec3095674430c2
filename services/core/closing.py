"""Closing of async generators: what wraps a stream of chunks closes it when it is left early.

An `async for` that is left leaves its generator suspended (PEP 525): a file that it has open stays open until the
generator is collected.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def closing(chunks: AsyncIterator[bytes]) -> AsyncIterator[None]:
    """Close `chunks` at the end of the block if it is a generator. Other iterators belong to whoever opened them."""
    try:
        yield
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
