"""Decompression of gzip, zstd, xz and bzip2 streams; plain data passes through.

Only the packing: the bytes inside are checked by whoever reads them. Memory stays at some tens of mebibytes however
well the stream was packed (`core/archives/packings.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from services.core.archives.packings import MAGIC_BYTES, packing_of, unpacker
from services.core.closing import closing
from services.errors import BadArchive
from services.ports import Chunks
from services.runtime.telemetry import get_logger

log = get_logger()


async def unpacked(chunks: Chunks, name: str) -> AsyncGenerator[bytes, None]:
    """The content of `chunks`. Raises BadArchive where the packing is broken, cut off, or takes too much memory.

    Something after the packing's end that does not belong to it is passed over, with a warning.
    """
    async with closing(chunks):
        head = b""
        async for chunk in chunks:
            head += chunk
            if len(head) >= MAGIC_BYTES:
                break
        packing = packing_of(head)
        if packing == "plain":
            if head:
                yield head
            async for chunk in chunks:
                yield chunk
            return
        unpack = unpacker(packing)
        try:
            waiting: bytes | None = head
            while waiting is not None:
                pieces = unpack.feed(waiting)
                while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                    yield piece
                waiting = await anext(chunks, None)
            unpack.finish()
        except ValueError as problem:
            raise BadArchive(f"{name}: {problem}; get it again, whole") from problem
        if unpack.trailing_garbage:
            log.warning("passed over bytes after the end of a packing", archive=name, packing=packing)
