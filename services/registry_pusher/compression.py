"""Compression of a layer to zstd: hashed before and after, in threads, one chunk at a time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import zstandard

from services.core.images.encodings import PROBE_BYTES, PROBE_SPAN_BYTES, PROBE_STRIDE
from services.errors import WrongContent
from services.ports import Chunks

#: What is kept in memory of a layer that goes by once, to see whether it shrinks.
HEAD_BYTES = 8 * PROBE_BYTES


class CompressedLayer:
    """`digest` and `size_bytes` are of the compressed blob, and hold after `chunks` has ended."""

    def __init__(self, diff_id: str, level: int) -> None:
        self.size_bytes = 0
        self._diff_id = diff_id
        self._before, self._after = hashlib.sha256(), hashlib.sha256()
        self._compressor = zstandard.ZstdCompressor(level=level).compressobj()

    @property
    def digest(self) -> str:
        return f"sha256:{self._after.hexdigest()}"

    async def chunks(self, layer: Chunks) -> AsyncIterator[bytes]:
        """The compressed bytes. Raises WrongContent at the end if the layer did not have the expected digest."""
        async for chunk in layer:
            if packed := await asyncio.to_thread(self._step, chunk):
                yield packed
        if f"sha256:{self._before.hexdigest()}" != self._diff_id:
            raise WrongContent(f"what was read as layer {self._diff_id} has digest sha256:{self._before.hexdigest()}")
        rest = self._compressor.flush()
        self._count(rest)
        yield rest

    def _step(self, chunk: bytes) -> bytes:
        self._before.update(chunk)
        packed = self._compressor.compress(chunk)
        self._count(packed)
        return packed

    def _count(self, packed: bytes) -> None:
        self._after.update(packed)
        self.size_bytes += len(packed)


async def samples_of(chunks: Chunks) -> list[bytes]:
    """Every eighth megabyte of the beginning of a layer."""
    samples: list[bytes] = []
    window, position = bytearray(), 0
    async for chunk in chunks:
        window += chunk
        while len(window) >= PROBE_BYTES:
            if position % PROBE_STRIDE == 0:
                samples.append(bytes(window[:PROBE_BYTES]))
            del window[:PROBE_BYTES]
            position += 1
        if position * PROBE_BYTES >= PROBE_SPAN_BYTES:
            return samples
    return samples or [bytes(window)]


async def head_of(chunks: Chunks) -> tuple[list[bytes], Chunks]:
    """Samples of the first megabytes of a layer that cannot be read twice, and the whole layer from its first byte."""
    head = bytearray()
    async for chunk in chunks:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    content = bytes(head)
    samples = [content[start : start + PROBE_BYTES] for start in range(0, len(content), 2 * PROBE_BYTES)]
    return samples, _chained(content, chunks)


async def _chained(head: bytes, rest: Chunks) -> AsyncIterator[bytes]:
    for start in range(0, len(head), PROBE_BYTES):
        yield head[start : start + PROBE_BYTES]
    async for chunk in rest:
        yield chunk
