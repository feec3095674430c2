"""Push parser of tars: takes chunks, and returns entries, their content, and the bytes between them.

Nothing is kept but the header at hand, at most a block or an extended header, so memory stays flat however long the
tar is. The bytes of all parts, one after the other, are the bytes that were fed, up to the tar's end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from services.core.archives.tar_headers import BLOCK_BYTES, Header, HeaderReader, is_end


@dataclass(frozen=True, slots=True)
class EntryStart:
    """An entry begins. `raw` are its header blocks, extended headers included."""

    header: Header
    raw: bytes


@dataclass(frozen=True, slots=True)
class EntryContent:
    """Some bytes of the content of the entry at hand."""

    raw: memoryview


@dataclass(frozen=True, slots=True)
class EntryEnd:
    """The entry at hand is complete; `raw` is its padding."""

    raw: bytes


Part = EntryStart | EntryContent | EntryEnd


class TarParser:
    """`feed()` every chunk and consume what it yields to the end; then `is_whole` tells whether the tar may end here.

    `feed` raises ValueError for what is no tar. Bytes after the tar's end are passed over.
    """

    def __init__(self) -> None:
        self._headers = HeaderReader()
        self._raw = bytearray()
        self._block = bytearray()
        self._wanted = BLOCK_BYTES
        self._extension: int | None = None
        self._content_bytes = 0
        self._padding: int | None = None
        self._ended = False
        self._entries = 0

    @property
    def ended(self) -> bool:
        """Whether the tar's end was reached; what follows it is padding."""
        return self._ended

    @property
    def entries(self) -> int:
        """How many entries began."""
        return self._entries

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing of what began: at the tar's end, or between two entries (some write no end)."""
        between = not self._block and not self._raw and not self._content_bytes and self._padding is None
        return self._ended or between

    def feed(self, chunk: bytes | memoryview) -> Iterator[Part]:
        """The parts that end, or go on, in this chunk."""
        rest = memoryview(chunk)
        while rest and not self._ended:
            if self._content_bytes:
                piece, rest = rest[: self._content_bytes], rest[self._content_bytes :]
                self._content_bytes -= len(piece)
                yield EntryContent(piece)
                if not self._content_bytes and not self._padding:
                    self._padding = None
                    yield EntryEnd(b"")
                continue
            missing = self._wanted - len(self._block)
            self._block += rest[:missing]
            rest = rest[missing:]
            if len(self._block) == self._wanted:
                yield from self._complete()

    def _complete(self) -> Iterator[Part]:
        """The block, extended header or padding that was gathered is complete."""
        block, self._block = bytes(self._block), bytearray()
        self._wanted = BLOCK_BYTES
        if self._padding is not None:
            self._padding = None
            yield EntryEnd(block)
            return
        if self._extension is not None:
            self._raw += block
            self._headers.extension(block[: self._extension])
            self._extension = None
            return
        if is_end(block):
            if self._raw:
                raise ValueError("the tar ends after an extended header, without the entry that it belongs to")
            self._ended = True
            return
        header = self._headers.header(block)
        self._raw += block
        if isinstance(header, Header):
            yield from self._begin(header)
        elif header:
            self._extension, self._wanted = header, header + -header % BLOCK_BYTES
        else:
            self._headers.extension(b"")

    def _begin(self, header: Header) -> Iterator[Part]:
        raw, self._raw = bytes(self._raw), bytearray()
        self._entries += 1
        yield EntryStart(header, raw)
        if not header.content_bytes:
            yield EntryEnd(b"")
            return
        self._content_bytes = header.content_bytes
        self._padding = header.padding_bytes
        if header.padding_bytes:
            self._wanted = header.padding_bytes
