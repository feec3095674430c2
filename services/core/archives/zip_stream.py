"""Parser of a zip as a stream: entries in the order in which they were written, without its directory at the end.

A zip's directory stands behind its content, so a reader of streams goes by the local headers (APPNOTE 4.3.7). Stored
and deflated entries are read. A stored one has to have its size in its header; a deflated one ends by itself, and may
have a data descriptor behind it (4.3.9). Each entry's CRC-32 is checked.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

ZIP_MAGIC = b"PK\x03\x04"
#: What follows the last entry: the directory, its end where there is no entry, and what else may stand between.
_BEHIND = (b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x08")
_DESCRIPTOR = b"PK\x07\x08"
_DESCRIPTOR_BYTES = 24
_HEADER = struct.Struct("<4sHHHHHIIIHH")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _DESCRIBED = 0x1, 0x8
_ZIP64, _UNKNOWN = 0x0001, 0xFFFFFFFF
#: Unpacked in pieces of this size, however well they were packed.
PIECE_BYTES = 256 * 1024
ENTRIES_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class EntryStart:
    """An entry begins; its content follows in pieces of bytes."""

    name: str


class EntryEnd:
    """The entry ended, and its CRC-32 is right."""


ZipEvent = EntryStart | bytes | EntryEnd


@dataclass(slots=True)
class _Entry:
    method: int
    described: bool
    crc: int
    packed_bytes: int
    found_crc: int = 0
    taken_bytes: int = 0
    given_bytes: int = 0


class ZipParser:
    """Parses what it is fed. Raises ValueError for what cannot be read."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._state: Literal["header", "content", "descriptor", "end"] = "header"
        self._entry = _Entry(0, False, 0, 0)
        self._unpack = zlib.decompressobj(-zlib.MAX_WBITS)
        self._entries = 0

    def feed(self, data: bytes) -> Iterator[ZipEvent]:
        """What `data` adds. Has to be read to its end before more is fed."""
        if self._state != "end":
            self._buffer += data
        steps = {"header": self._header, "content": self._content, "descriptor": self._described}
        while (step := steps.get(self._state)) is not None:
            before = (self._state, len(self._buffer), self._entry.given_bytes)
            yield from step()
            if before == (self._state, len(self._buffer), self._entry.given_bytes):
                return

    def finish(self) -> None:
        """Check that the zip came to its end."""
        if self._state != "end":
            raise ValueError("the zip is cut off")

    def _header(self) -> Iterator[ZipEvent]:
        if len(self._buffer) >= 4 and bytes(self._buffer[:4]) in _BEHIND:
            self._state = "end"
            self._buffer.clear()
            return
        if len(self._buffer) < _HEADER.size:
            if self._buffer and not ZIP_MAGIC.startswith(bytes(self._buffer[:4])):
                raise ValueError("it is not a zip")
            return
        magic, _, flags, method, _, _, crc, packed, plain, name_bytes, extra_bytes = _HEADER.unpack_from(self._buffer)
        if magic != ZIP_MAGIC:
            raise ValueError("no header stands where one is due")
        end = _HEADER.size + name_bytes + extra_bytes
        if len(self._buffer) < end:
            return
        name = bytes(self._buffer[_HEADER.size : _HEADER.size + name_bytes]).decode(errors="replace")
        extra = bytes(self._buffer[_HEADER.size + name_bytes : end])
        del self._buffer[:end]
        self._begin(name, flags, method, crc, _size(packed, plain, extra))
        yield EntryStart(name)

    def _begin(self, name: str, flags: int, method: int, crc: int, packed_bytes: int) -> None:
        self._entries += 1
        described = bool(flags & _DESCRIBED)
        if self._entries > ENTRIES_LIMIT:
            raise ValueError(f"it has more than {ENTRIES_LIMIT} entries")
        if flags & _ENCRYPTED:
            raise ValueError(f"{name[:200]} is encrypted")
        if method not in (_STORED, _DEFLATED):
            raise ValueError(f"{name[:200]} is packed by method {method}; stored and deflated ones are read")
        if method == _STORED and described and not packed_bytes:
            raise ValueError(f"{name[:200]} is stored without its size: deflate it, or write the zip into a file")
        self._entry = _Entry(method, described, crc, packed_bytes)
        self._unpack = zlib.decompressobj(-zlib.MAX_WBITS)
        self._state = "content"

    def _content(self) -> Iterator[ZipEvent]:
        entry = self._entry
        if entry.method == _STORED:
            piece = bytes(self._buffer[: min(PIECE_BYTES, entry.packed_bytes - entry.taken_bytes)])
            del self._buffer[: len(piece)]
            entry.taken_bytes += len(piece)
            at_end = entry.taken_bytes == entry.packed_bytes
        else:
            piece, at_end = self._inflate()
        if piece:
            entry.found_crc = zlib.crc32(piece, entry.found_crc)
            entry.given_bytes += len(piece)
            yield piece
        if not at_end:
            return
        if entry.described:
            self._state = "descriptor"
            return
        if entry.taken_bytes != entry.packed_bytes:
            raise ValueError("an entry is not as long as its header says")
        yield self._end(entry.crc)

    def _inflate(self) -> tuple[bytes, bool]:
        """One piece, and whether it is the last."""
        given = bytes(self._buffer)
        try:
            piece = self._unpack.decompress(given, PIECE_BYTES)
        except zlib.error as problem:
            raise ValueError(f"an entry is damaged: {problem}") from problem
        left = self._unpack.unused_data if self._unpack.eof else self._unpack.unconsumed_tail
        self._entry.taken_bytes += len(given) - len(left)
        self._buffer[:] = left
        return piece, self._unpack.eof

    def _described(self) -> Iterator[ZipEvent]:
        """The data descriptor: with or without its mark, with sizes of four or of eight bytes."""
        if len(self._buffer) < _DESCRIPTOR_BYTES:
            return
        entry = self._entry
        for mark in (_DESCRIPTOR, b""):
            for form in ("<IQQ", "<III"):
                wanted = mark + struct.pack(
                    form, entry.found_crc, *(size & (_UNKNOWN if form == "<III" else -1) for size in _sizes(entry))
                )
                if self._buffer.startswith(wanted):
                    del self._buffer[: len(wanted)]
                    yield self._end(entry.found_crc)
                    return
        raise ValueError("an entry's content is damaged: its data descriptor has another checksum or size")

    def _end(self, crc: int) -> EntryEnd:
        if crc != self._entry.found_crc:
            raise ValueError("an entry's content is damaged: its checksum is another one")
        self._state = "header"
        return EntryEnd()


def _sizes(entry: _Entry) -> tuple[int, int]:
    return entry.taken_bytes, entry.given_bytes


def _size(packed: int, plain: int, extra: bytes) -> int:
    """The packed size of an entry, from its zip64 field where it has one (APPNOTE 4.5.3)."""
    if packed != _UNKNOWN:
        return packed
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        field = extra[at + 4 : at + 4 + length]
        at += 4 + length
        offset = 8 if plain == _UNKNOWN else 0
        if kind == _ZIP64 and len(field) >= offset + 8:
            return int(struct.unpack_from("<Q", field, offset)[0])
    raise ValueError("an entry's size is not given")
