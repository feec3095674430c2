"""Tar-split of a layer's tar, as a classic engine writes it while it unpacks one (vbatts/tar-split, tar/asm).

`services.core.archives.tar_split` describes the format. What an engine does not take this does not write: two entries
with one path, and sparse files, which no engine gives back as they came.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator

import msgspec
from fastcrc import crc64

from services.core.archives.tar_headers import BLOCK_BYTES, Header, HeaderReader, is_end
from services.core.archives.tar_split import FILE, SEGMENT

_CHUNK_BYTES = 1 << 20
_ENCODER = msgspec.json.Encoder()


class _Line(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    type: int
    payload: bytes | None
    position: int
    name: str = ""
    name_raw: bytes = b""
    size: int = 0


class TarSplitWriter:
    """Reads a tar with `read(n)`, which gives up to `n` bytes, fewer at the end alone.

    `files_bytes` is what all files hold, as the engine counts a layer's size; it is right after the last line.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.files_bytes = 0
        self._read = read
        self._position = 0
        self._segment = bytearray()
        self._paths: set[bytes] = set()

    def lines(self) -> Iterator[bytes]:
        """The list, line by line. Raises ValueError for what is no tar, or none that an engine takes."""
        while (header := self._header()) is not None:
            self._check(header)
            yield from self._flush()
            yield self._file(header)
            self._segment += self._exactly(header.padding_bytes)
        while rest := self._read(_CHUNK_BYTES):
            self._segment += rest
            if len(self._segment) >= _CHUNK_BYTES:
                yield from self._flush()
        yield from self._flush()

    def _header(self) -> Header | None:
        """The next entry, whose header is in the segment; None at the end."""
        reader = HeaderReader()
        while True:
            block = self._read(BLOCK_BYTES)
            self._segment += block
            if not block or is_end(block):
                return None
            header = reader.header(block)
            if isinstance(header, Header):
                return header
            content = self._exactly(header)
            self._segment += content
            self._segment += self._exactly(-header % BLOCK_BYTES)
            reader.extension(content)

    def _check(self, header: Header) -> None:
        if header.unpacked_bytes != header.content_bytes:
            raise ValueError(f"{header.name!r} is a sparse file, which no engine gives back as it came")
        if header.content_bytes and not header.is_file:
            raise ValueError(f"{header.name!r} has content and is no file")
        path = posixpath.normpath(header.name.encode(errors="surrogateescape"))
        if path in self._paths:
            raise ValueError(f"{header.name!r} occurs twice")
        self._paths.add(path)

    def _file(self, header: Header) -> bytes:
        size = left = header.content_bytes
        check = 0
        while left:
            chunk = self._exactly(min(left, _CHUNK_BYTES))
            check = crc64.go_iso(chunk, check)
            left -= len(chunk)
        self.files_bytes += size
        name = header.name + "/" * (header.kind == "folder")
        raw = name.encode(errors="surrogateescape")
        try:
            raw.decode()
        except UnicodeDecodeError:
            name = ""
        else:
            raw = b""
        return self._line(FILE, check.to_bytes(8, "big") if size else None, name, raw, size)

    def _flush(self) -> Iterator[bytes]:
        if self._segment:
            yield self._line(SEGMENT, bytes(self._segment))
            self._segment.clear()

    def _line(self, kind: int, payload: bytes | None, name: str = "", raw: bytes = b"", size: int = 0) -> bytes:
        line = _Line(kind, payload, self._position, name, raw, size)
        self._position += 1
        return _ENCODER.encode(line) + b"\n"

    def _exactly(self, wanted: int) -> bytes:
        found = self._read(wanted) if wanted else b""
        if len(found) != wanted:
            raise ValueError("the tar is cut off")
        return found
