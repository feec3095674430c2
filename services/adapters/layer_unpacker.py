"""Program: decompression of one layer's blob from standard input to standard output. Its argument is `gzip` or `zstd`.

What was compressed is not trusted. Started as root, the process becomes a user without any right before it reads the
first byte, and it can write nothing but its output: whoever started it checks what comes, and stops it where that is
too much. Exit status 1 for a blob that is not wholly of that packing, with the reason on standard error; an engine
refuses bytes after the packing's end as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from services.adapters.unprivileged import drop_rights
from services.core.archives.packings import MAGIC_BYTES, packing_of, unpacker

_READ_BYTES = 1 << 18


def main(arguments: Sequence[str]) -> int:
    drop_rights()
    try:
        unpack(arguments[0], sys.stdin.fileno(), sys.stdout.fileno())
    except (ValueError, MemoryError) as problem:
        sys.stderr.write(ascii(str(problem) or "there is not enough memory")[1:-1])
        return 1
    except BrokenPipeError:
        return 1  # whoever reads has enough
    return 0


def unpack(codec: str, source: int, target: int) -> None:
    """Write what is in `source`, two open descriptors. Raises ValueError for what is not of that codec, OSError."""
    chunk = os.read(source, _READ_BYTES)
    if len(chunk) < MAGIC_BYTES or packing_of(chunk) != codec:
        raise ValueError(f"it is not packed with {codec}")
    packing = unpacker(packing_of(chunk))
    while chunk:
        for piece in packing.feed(chunk):
            _write(target, piece)
        if packing.trailing_garbage:
            break
        chunk = os.read(source, _READ_BYTES)
    packing.finish()
    if packing.trailing_garbage:
        raise ValueError(f"something that is not packed with {codec} follows its end")


def _write(target: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(target, left) :]
