"""Files and standard input as streams of bytes, read off the event loop's thread."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from services.errors import BadInput, NotFound
from services.ports import Chunks

CHUNK_BYTES = 1024 * 1024


def open_for_reading(path: Path) -> BinaryIO:
    """Raises NotFound or BadInput with the reason and the path."""
    try:
        return path.open("rb")
    except FileNotFoundError as problem:
        raise NotFound(f"there is no file {path}") from problem
    except OSError as problem:
        raise BadInput(f"cannot read {path}: {problem.strerror or problem}") from problem


def free_bytes(folder: str) -> int | None:
    """Free space on the disk of a folder in bytes; None where it cannot be determined."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def disk_space(folder: str) -> tuple[int, int] | None:
    """Bytes that are free on the disk of a folder, and all there are; None where that cannot be determined."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.free, usage.total


async def file_chunks(path: Path) -> AsyncIterator[bytes]:
    """The whole file, in pieces of at most a mebibyte."""
    file = await asyncio.to_thread(open_for_reading, path)
    try:
        async for chunk in _chunks(file, str(path)):
            yield chunk
    finally:
        file.close()


def stdin_chunks() -> Chunks:
    """Standard input up to its end."""
    return _chunks(sys.stdin.buffer, "standard input")


async def _chunks(file: BinaryIO, name: str) -> AsyncIterator[bytes]:
    while True:
        try:
            chunk = await asyncio.to_thread(file.read, CHUNK_BYTES)
        except OSError as problem:
            raise BadInput(f"cannot read {name}: {problem.strerror or problem}") from problem
        if not chunk:
            return
        yield chunk
