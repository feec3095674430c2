"""Streaming tar reader: entry by entry, keeping only the current chunk."""

from __future__ import annotations

from collections.abc import AsyncIterator

from services.core.archives.tar_headers import BLOCK_BYTES, Header, HeaderReader, is_end
from services.errors import BadArchive
from services.ports import Chunks


class TarStream:
    """`next` gives an entry's header, then `content` gives its bytes; what is not read of it is skipped."""

    def __init__(self, chunks: Chunks, what: str) -> None:
        self._chunks = chunks
        self._what = what
        self._chunk = memoryview(b"")
        self._left = 0
        self._padding = 0

    async def next(self) -> Header | None:
        """The next entry, None at the end. Raises BadArchive for what is no tar or is cut off."""
        reader = HeaderReader()
        while True:
            await self._skip(self._left + self._padding)
            self._left = self._padding = 0
            block = await self._exactly(BLOCK_BYTES)
            if is_end(block):
                await self._drain()
                return None
            try:
                header = reader.header(block)
                if isinstance(header, Header):
                    self._left, self._padding = header.content_bytes, header.padding_bytes
                    return header
                reader.extension(await self._exactly(header))
                self._padding = -header % BLOCK_BYTES
            except ValueError as problem:
                raise BadArchive(f"{self._what}: {problem}") from problem

    async def content(self) -> AsyncIterator[bytes]:
        """The bytes of the entry at hand, in chunks as they come."""
        while self._left:
            await self._fill()
            piece = self._take(self._left)
            self._left -= len(piece)
            yield bytes(piece)

    async def read(self, limit_bytes: int) -> bytes | None:
        """The whole content of the entry at hand; None, and nothing read, if it is longer than `limit_bytes`."""
        if self._left > limit_bytes:
            return None
        content = await self._exactly(self._left)
        self._left = 0
        return content

    async def peek(self, wanted_bytes: int) -> bytes:
        """The first bytes of the content, which stay to be read."""
        wanted = min(wanted_bytes, self._left)
        head = bytes(self._chunk[:wanted])
        if len(head) < wanted:
            head = await self._exactly(wanted)
            self._chunk = memoryview(head + bytes(self._chunk))
        return head

    async def _exactly(self, wanted_bytes: int) -> bytes:
        pieces: list[bytes] = []
        missing = wanted_bytes
        while missing:
            await self._fill()
            piece = self._take(missing)
            missing -= len(piece)
            pieces.append(bytes(piece))
        return b"".join(pieces)

    async def _skip(self, bytes_to_skip: int) -> None:
        while bytes_to_skip:
            await self._fill()
            bytes_to_skip -= len(self._take(bytes_to_skip))

    async def _drain(self) -> None:
        """To the end of the stream, so that the sender is not cut off."""
        self._chunk = memoryview(b"")
        async for _ in self._chunks:
            pass

    def _take(self, most_bytes: int) -> memoryview:
        piece, self._chunk = self._chunk[:most_bytes], self._chunk[most_bytes:]
        return piece

    async def _fill(self) -> None:
        while not self._chunk:
            try:
                self._chunk = memoryview(await anext(self._chunks))
            except StopAsyncIteration as end:
                raise BadArchive(f"{self._what}: the tar is cut off") from end
