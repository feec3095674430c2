"""Sparse files: what is written from chunks, with a hole wherever a whole block is zeros.

A disk image in a layer is zeros for the most part, since no engine and no archive keeps holes. Left out, they take
neither the disk's space nor its time; who reads the file gets the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

#: A hole is at least so long, where chunks are: smaller ones would save little and cut the file in many pieces.
BLOCK_BYTES = 64 * 1024
_ZEROS = bytes(BLOCK_BYTES)


def data_runs(chunk: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """The parts of `chunk` to write, as (start, end) in it, where it begins at `offset` of the file.

    Blocks are those of the file, so that holes of two chunks meet.
    """
    begun: int | None = None
    start = 0
    while start < len(chunk):
        end = min(len(chunk), start + BLOCK_BYTES - (offset + start) % BLOCK_BYTES)
        # `startswith` compares without a copy, and ends at the first byte that differs.
        if chunk.startswith(_ZEROS if end - start == BLOCK_BYTES else _ZEROS[: end - start], start):
            if begun is not None:
                yield begun, start
            begun = None
        elif begun is None:
            begun = start
        start = end
    if begun is not None:
        yield begun, len(chunk)


def write_sparse(descriptor: int, chunk: bytes, offset: int) -> None:
    """Write `chunk` at `offset` of a new file, but for its holes; blocking. Raises OSError.

    The file ends with its last data: `os.ftruncate` gives it its size.
    """
    for start, end in data_runs(chunk, offset):
        left = memoryview(chunk)[start:end]
        while left:
            left = left[os.pwrite(descriptor, left, offset + end - len(left)) :]
