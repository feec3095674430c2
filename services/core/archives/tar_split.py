"""Tar-split: the format in which a classic engine stores the headers of a layer's tar (vbatts/tar-split,
tar/storage/entry.go).

Beside each layer lies a list, one JSON object a line. In order, put one after the other, they are the tar:

    type 2  bytes of the tar itself (headers, padding, the end), base64 in `payload`
    type 1  the content of the file `name`, `size` bytes, which lies in the layer's folder; size 0 has no content.
            A name that is not UTF-8 is base64 in `name_raw` instead.

Lists are long (two lines a file) and decoded by the batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from events.malformed import MALFORMED

FILE = 1
SEGMENT = 2
_SPARSE = re.compile(rb"\d+ GNU\.sparse\.(?:major|minor|size|realsize|numblocks|map|offset)=")


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One line. The `payload` of a FILE is its CRC-64, which nothing here needs: the whole tar is verified."""

    type: int
    name: str = ""
    name_raw: bytes = b""
    size: int = 0
    payload: bytes | None = b""

    @property
    def path(self) -> bytes:
        """The file's name in the tar, as bytes."""
        return self.name_raw or self.name.encode()


_DECODER = msgspec.json.Decoder(Entry)


def decode(blocks: Iterable[bytes]) -> Iterator[list[Entry]]:
    """Entries in batches, from the list's text in blocks of any size. Raises ValueError for anything else."""
    rest = b""
    for block in blocks:
        whole, newline, tail = block.rpartition(b"\n")
        if not newline:
            rest += tail
            continue
        yield _checked(rest + whole)
        rest = tail
    if rest.strip():
        yield _checked(rest)


def tar_size(batches: Iterable[list[Entry]]) -> int:
    """Bytes of the whole tar."""
    return sum(
        len(entry.payload or b"") if entry.type == SEGMENT else entry.size for batch in batches for entry in batch
    )


def has_sparse_file(batch: Iterable[Entry]) -> bool:
    """Whether a header among these is of a sparse file (GNU tar manual, "PAX Format, Versions 0.0 to 1.0").

    The list says how large such a file is in the folder, not which parts of it were in the tar.
    """
    return any(
        entry.type == SEGMENT and entry.payload and b" GNU.sparse." in entry.payload and _SPARSE.search(entry.payload)
        for entry in batch
    )


def _checked(text: bytes) -> list[Entry]:
    try:
        entries = _DECODER.decode_lines(text)
    except MALFORMED as problem:
        raise ValueError(f"a tar-split list that cannot be read: {problem}") from problem
    for entry in entries:
        if entry.type not in {FILE, SEGMENT} or entry.size < 0:
            raise ValueError(f"a tar-split entry of type {entry.type} and size {entry.size}")
    return entries
