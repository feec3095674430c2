"""A tar of a build context in a file: whether it is one, and whether it holds a Dockerfile, with memory flat.

Packed as engines take it (gzip, bzip2, xz, zstd), in any dialect. Only headers are read; content is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from services.adapters.files import CHUNK_BYTES, open_for_reading
from services.core.archives.entry_rules import clean_path
from services.core.archives.packings import MAGIC_BYTES, packing_of, unpacker
from services.core.archives.tar_headers import Header
from services.core.archives.tar_parser import EntryStart, TarParser


def is_tar(path: Path) -> bool:
    """Whether the file begins as a tar, packed or not. Raises NotFound, BadInput for a file that cannot be read."""
    try:
        return next(headers(path), None) is not None
    except ValueError:
        return False


def holds(path: Path, name: str) -> bool:
    """Whether a tar has an entry of that name. Raises ValueError for one that is broken or cut off before it."""
    wanted = clean_path(name)
    for header in headers(path):
        try:
            if clean_path(header.name) == wanted:
                return True
        except ValueError:
            continue  # a name that leads out of the context; the engine refuses it
    return False


def headers(path: Path) -> Iterator[Header]:
    """The entries of a tar. Raises ValueError where it is broken, cut off, or none."""
    parser = TarParser()
    for chunk in _plain(path):
        for part in parser.feed(chunk):
            if isinstance(part, EntryStart):
                yield part.header
        if parser.ended:
            return
    if not parser.is_whole:
        raise ValueError("the tar is cut off")


def _plain(path: Path) -> Iterator[bytes]:
    with open_for_reading(path) as file:
        chunk = file.read(CHUNK_BYTES)
        unpack = unpacker(packing_of(chunk[:MAGIC_BYTES]))
        while chunk:
            yield from unpack.feed(chunk)
            chunk = file.read(CHUNK_BYTES)
        unpack.finish()
