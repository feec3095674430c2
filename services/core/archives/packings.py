"""Streaming decompression of gzip, zstd, xz and bzip2, in steps of bounded size, however well the stream was packed.

gzip (RFC 1952) and zstd (RFC 8878) streams may have several members or frames in a row; zstd's may begin with a
skippable frame, as pzstd writes it. What follows the last member and is none is passed over with a warning, as gunzip
does. A zstd window above 128 MiB (`--long=28` and more) and an xz dictionary above that would take as much memory, so
they are refused.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator
from typing import Literal, Protocol

import zstandard

Packing = Literal["plain", "gzip", "zstd", "xz", "bzip2"]

#: The first bytes that tell all packings apart.
MAGIC_BYTES = 6
WINDOW_LIMIT_BYTES = 1 << 27
_GZIP, _ZSTD, _XZ, _BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"
_PIECE_BYTES = 4 << 20
#: The zstd library bounds no step by itself; a block of four bytes may give 128 KiB, so this gives 32 MiB at most.
_ZSTD_STEP_BYTES = 1 << 10
#: xz's own needs beside the dictionary.
_XZ_MEMORY_BYTES = WINDOW_LIMIT_BYTES + (16 << 20)


def packing_of(head: bytes) -> Packing:
    """The packing of a stream that begins with `head`."""
    if head.startswith(_GZIP):
        return "gzip"
    if head.startswith(_ZSTD) or _is_skippable(head):
        return "zstd"
    if head.startswith(_XZ):
        return "xz"
    return "bzip2" if head.startswith(_BZIP2) and head[3:4].isdigit() else "plain"


class Unpacker(Protocol):
    """`feed()` every chunk and consume what it gives, then `finish()`. Both raise ValueError for a broken stream."""

    @property
    def trailing_garbage(self) -> bool:
        """Whether something that is no member follows the last one."""
        ...

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The unpacked content of the chunk, in pieces of a few MiB."""
        ...

    def finish(self) -> None:
        """End the stream. Raises ValueError if it is cut off."""
        ...


def unpacker(packing: Packing) -> Unpacker:
    """An unpacker for a stream of that packing."""
    if packing == "gzip":
        return _Gunzip()
    if packing == "zstd":
        return _Unzstd()
    if packing == "xz":
        return _Members(lzma.LZMADecompressor, "xz", _XZ)
    if packing == "bzip2":
        return _Members(bz2.BZ2Decompressor, "bzip2", _BZIP2)
    return _Plain()


class _Plain:
    trailing_garbage = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        if chunk:
            yield chunk

    def finish(self) -> None:
        """Nothing can be missing."""


class _Next:
    """Bytes after the end of a member: padding, the beginning of the next member, or garbage."""

    def __init__(self, *magics: bytes) -> None:
        self._magics = magics
        self._head = b""
        self.garbage = False

    def feed(self, chunk: bytes) -> bytes | None:
        """All bytes of a next member; None while there is none."""
        if self.garbage:
            return None
        self._head = (self._head + chunk).lstrip(b"\0") if not self._head else self._head + chunk
        if not self._head or any(magic.startswith(self._head) for magic in self._magics):
            return None
        if any(self._head.startswith(magic) for magic in self._magics):
            found, self._head = self._head, b""
            return found
        self.garbage = True
        return None

    @property
    def incomplete(self) -> bool:
        """Whether the stream ended within what may have been the beginning of a member."""
        return bool(self._head) and not self.garbage


class _Gunzip:
    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._next = _Next(_GZIP)

    @property
    def trailing_garbage(self) -> bool:
        return self._next.garbage or self._next.incomplete

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self._member.eof:
                following = self._next.feed(chunk)
                if following is None:
                    return
                chunk, self._member = following, zlib.decompressobj(wbits=31)
            try:
                piece = self._member.decompress(chunk, _PIECE_BYTES)
            except zlib.error as problem:
                raise ValueError(f"its gzip packing is broken: {problem}") from problem
            chunk = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                yield piece

    def finish(self) -> None:
        if not self._member.eof:
            raise ValueError("it is cut off: its gzip packing has no end")


class _Unzstd:
    trailing_garbage = False

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT_BYTES).decompressobj()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        view = memoryview(chunk)
        while view:
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT_BYTES).decompressobj()
            step, view = view[:_ZSTD_STEP_BYTES], view[_ZSTD_STEP_BYTES:]
            try:
                piece = self._frame.decompress(step)
            except zstandard.ZstdError as problem:
                raise ValueError(_zstd_problem(problem)) from problem
            unused = len(self._frame.unused_data)
            if unused:
                view = memoryview(chunk)[len(chunk) - len(view) - unused :]
            if piece:
                yield piece

    def finish(self) -> None:
        if not self._frame.eof:
            raise ValueError("it is cut off: its zstd packing has no end")


def _zstd_problem(problem: zstandard.ZstdError) -> str:
    if "too much memory" in str(problem):
        return (
            f"its zstd window is too large: unpacking it would take more than {WINDOW_LIMIT_BYTES >> 20} MiB of memory;"
            " pack it again with --long=27 or less"
        )
    return f"its zstd packing is broken: {problem}"


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Members:
    """xz and bzip2, whose decompressors in Python's library have the same interface."""

    def __init__(self, kind: type[lzma.LZMADecompressor] | type[bz2.BZ2Decompressor], name: str, magic: bytes) -> None:
        self._kind = kind
        self._name = name
        self._member = self._new()
        self._next = _Next(magic)

    @property
    def trailing_garbage(self) -> bool:
        return self._next.garbage or self._next.incomplete

    def _new(self) -> _Decompressor:
        if issubclass(self._kind, lzma.LZMADecompressor):
            return self._kind(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        return self._kind()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self._member.eof:
                following = self._next.feed(chunk)
                if following is None:
                    return
                chunk, self._member = following, self._new()
            yield from self._unpack(chunk)
            chunk = self._member.unused_data if self._member.eof else b""

    def _unpack(self, chunk: bytes) -> Iterator[bytes]:
        while not self._member.eof:
            try:
                piece = self._member.decompress(chunk, _PIECE_BYTES)
            except (lzma.LZMAError, OSError, EOFError) as problem:
                raise ValueError(self._problem(problem)) from problem
            if piece:
                yield piece
            if self._member.needs_input:
                return
            chunk = b""

    def _problem(self, problem: Exception) -> str:
        if "memory" in str(problem).lower():
            return (
                f"its xz dictionary is too large: unpacking it would take more than {WINDOW_LIMIT_BYTES >> 20} MiB of"
                " memory; pack it again with -9 or less"
            )
        return f"its {self._name} packing is broken: {problem}"

    def finish(self) -> None:
        if not self._member.eof:
            raise ValueError(f"it is cut off: its {self._name} packing has no end")


def _is_skippable(head: bytes) -> bool:
    """A zstd frame for others (RFC 8878, 3.1.2): 0x184D2A50 to 0x184D2A5F, little endian."""
    return len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50
