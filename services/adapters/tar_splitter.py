"""Program: tar-splits of some tars, gzipped. Its arguments are pairs of open descriptors, a tar and where its tar-split
goes, as `3:4`; to its standard output comes one line for each: `size BYTES`, what the tar's files hold, or `error WHY`.

The tars are not trusted. Started as root, the process becomes a user without any right before it reads the first byte
(`setpriv` in front of it would need that user to be able to read this program). Each tar is read by a child of its own,
so that it can neither change nor end what becomes of another, and has its own share of the limits.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Sequence
from typing import IO

from services.adapters.unprivileged import drop_rights
from services.core.archives.tar_split_writer import TarSplitWriter

_GZIP = 16 + zlib.MAX_WBITS
_GATHER_BYTES = 1 << 16
_ANSWER_LIMIT_BYTES = 400


def main(arguments: Sequence[str]) -> int:
    """Exit status 0, whatever became of the tars."""
    drop_rights()
    for pair in arguments:
        tar, target = map(int, pair.split(":"))
        sys.stdout.write(f"{_in_child(tar, target)}\n")
        sys.stdout.flush()
    return 0


def _in_child(tar: int, target: int) -> str:
    """The answer of a child that reads one tar."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        answer = "error unforeseen"
        try:
            answer = _answer(tar, target)
        finally:
            os.write(writing, answer.encode("ascii", "replace")[:_ANSWER_LIMIT_BYTES])
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        said = answers.read(_ANSWER_LIMIT_BYTES).decode("ascii", "replace")
    _, status = os.waitpid(child, 0)
    return said if said and "\n" not in said else f"error the program was ended (status {status})"


def _answer(tar: int, target: int) -> str:
    try:
        with open(tar, "rb", closefd=False) as source, open(target, "wb", closefd=False) as made:
            return f"size {split(source, made)}"
    except (ValueError, OSError, MemoryError) as problem:
        return f"error {ascii(str(problem))[:300]}"


def split(source: IO[bytes], made: IO[bytes]) -> int:
    """Write the tar-split of `source`; how many bytes its files hold. Raises ValueError for a tar that has none."""
    writer = TarSplitWriter(source.read)
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    gathered = bytearray()
    for line in writer.lines():
        gathered += line
        if len(gathered) >= _GATHER_BYTES:
            made.write(packer.compress(gathered))
            gathered.clear()
    made.write(packer.compress(gathered) + packer.flush())
    return writer.files_bytes
