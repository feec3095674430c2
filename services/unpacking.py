"""Takes gzip and zstd off a stream, as `docker load` would; what is not packed passes through.

Only the packing: the bytes inside are looked at by whoever reads them. Memory stays at a few mebibytes however well
the stream was packed.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import zstandard

from services.errors import BadArchive
from services.ports import Chunks

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"
_PIECE_BYTES = 4 * 1024 * 1024
_INPUT_BYTES = 64 * 1024


async def unpacked(chunks: Chunks, name: str) -> AsyncGenerator[bytes, None]:
    """The content of `chunks`. Raises BadArchive where the packing is broken, cut off, or one that is not known."""
    first, rest = await _head(chunks)
    if first.startswith((_BZIP2, _XZ)):
        raise BadArchive(f"{name} is packed by bzip2 or xz; unpack it first, or pack it by gzip or zstd")
    if first.startswith(_GZIP):
        plain = _plain(_Gunzip(name), first, rest)
    elif first.startswith(_ZSTD):
        plain = _plain(_Unzstd(name), first, rest)
    else:
        plain = _again(first, rest)
    async for chunk in plain:
        yield chunk


async def _head(chunks: Chunks) -> tuple[bytes, Chunks]:
    """At least the six bytes that tell a packing, if there are that many."""
    first = b""
    async for chunk in chunks:
        first += chunk
        if len(first) >= len(_XZ):
            break
    return first, chunks


async def _again(first: bytes, rest: Chunks) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk


async def _plain(unpack: _Gunzip | _Unzstd, first: bytes, rest: Chunks) -> AsyncIterator[bytes]:
    async for chunk in _again(first, rest):
        pieces = unpack.feed(chunk)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
    unpack.finish()


class _Gunzip:
    """gzip, also of several members in a row as `pigz` and `cat` make them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._member = zlib.decompressobj(wbits=31)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self._member.eof:
                chunk = chunk.lstrip(b"\0")  # padding after the last member is legal
                if not chunk:
                    return
                self._member = zlib.decompressobj(wbits=31)
            try:
                piece = self._member.decompress(chunk, _PIECE_BYTES)
            except zlib.error as problem:
                raise BadArchive(f"{self._name}: its gzip packing is broken: {problem}") from problem
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                yield piece

    def finish(self) -> None:
        if not self._member.eof:
            raise BadArchive(f"{self._name} is cut off: its gzip packing has no end; get it again, whole")


class _Unzstd:
    def __init__(self, name: str) -> None:
        self._name = name
        self._frame = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
        self._any = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """In small steps, since the library has no bound on what one step gives."""
        while chunk:
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
            step, chunk = chunk[:_INPUT_BYTES], chunk[_INPUT_BYTES:]
            try:
                piece = self._frame.decompress(step)
            except zstandard.ZstdError as problem:
                raise BadArchive(f"{self._name}: its zstd packing is broken: {problem}") from problem
            chunk = self._frame.unused_data + chunk
            if piece:
                yield piece

    def finish(self) -> None:
        if not self._frame.eof:
            raise BadArchive(f"{self._name} is cut off: its zstd packing has no end; get it again, whole")
