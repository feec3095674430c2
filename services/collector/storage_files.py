"""Files of the registry's storage that others write at the same time: one that is gone is nothing, not an error."""

from __future__ import annotations

import os
from pathlib import Path

from services.core.images.manifests import MANIFEST_LIMIT_BYTES


def names_in(folder: str | Path) -> list[str]:
    """What lies in a folder; nothing where there is none."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def file_stat(path: str | Path) -> os.stat_result | None:
    """The file's stat; None where there is no such file."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_small(path: str | Path) -> bytes | None:
    """A small file's content; None where there is none, or where it is too large."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        size_bytes = os.fstat(handle).st_size
        return os.read(handle, size_bytes + 1) if size_bytes <= MANIFEST_LIMIT_BYTES else None
    except IsADirectoryError:
        return None
    finally:
        os.close(handle)


def tree_bytes(folder: Path, *, apparent: bool) -> int:
    """Bytes below `folder`: the sum of files' sizes, or the blocks that everything there takes."""
    total = 0
    for here, folders, files in os.walk(folder):
        for name in (*files, *(() if apparent else folders)):
            try:
                found = os.lstat(os.path.join(here, name))
            except OSError:
                continue  # an upload that ended meanwhile
            total += found.st_size if apparent else found.st_blocks * 512
    return total
