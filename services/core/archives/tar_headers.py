"""Tar headers of every dialect: v7, ustar, star, GNU (long names, base-256 sizes) and pax, read as engines read them.

What a reader needs to go from entry to entry: name, kind, link target, and how many bytes follow. From 8 GiB on a size
does not fit the octal field: GNU writes it in base 256, pax writes a record `size` and often zero in the field. Where
dialects contradict each other this reader does what Go's `archive/tar` does, so that a check and the engine behind it
see the same entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from services.core.archives.pax_records import PaxRecords, check_global

BLOCK_BYTES = 512
#: Long names and pax records are read into memory; Go's reader has the same limit.
EXTENSION_LIMIT_BYTES = 1 << 20

Kind = Literal["file", "hard link", "link", "device", "folder", "fifo", "other"]
_KINDS: dict[bytes, Kind] = {
    b"\0": "file",
    b"0": "file",
    b"1": "hard link",
    b"2": "link",
    b"3": "device",
    b"4": "device",
    b"5": "folder",
    b"6": "fifo",
    b"7": "file",
}
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK, _GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"
_EXTENSIONS = (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK)
_WITH_CONTENT = ("file", "other")


@dataclass(frozen=True, slots=True)
class Header:
    """One entry. `content_bytes` follow it, then padding up to the next block.

    link                target of a link, as the tar has it; empty for anything else
    unpacked_bytes      what the file takes when it is unpacked: more than its content for a sparse file
    """

    name: str
    content_bytes: int
    kind: Kind = "file"
    link: str = ""
    unpacked_bytes: int = 0

    @property
    def is_file(self) -> bool:
        return self.kind == "file"

    @property
    def padding_bytes(self) -> int:
        return -self.content_bytes % BLOCK_BYTES


class HeaderReader:
    """Feed it blocks: it says which content it wants (an extension's), or gives the header of an entry."""

    def __init__(self) -> None:
        self._pax = PaxRecords()
        self._long_name: str | None = None
        self._long_link: str | None = None
        self._extension = b""

    def header(self, block: bytes) -> Header | int:
        """The entry that `block` begins, or how many bytes of an extension follow it. Raises ValueError."""
        _check_sum(block)
        size = _number(block[124:136], "size")
        if size < 0:
            raise ValueError(f"the entry {_text(block[:100])!r} has a size of {size}")
        kind = block[156:157]
        if kind in _EXTENSIONS:
            if size > EXTENSION_LIMIT_BYTES:
                raise ValueError(f"an extended header of {size} bytes; {EXTENSION_LIMIT_BYTES} are the most")
            self._extension = kind
            return size
        if kind == _GNU_SPARSE:
            raise ValueError(
                f"{_text(block[:100])!r} is packed as a sparse file in GNU tar's old format: pack it without --sparse"
            )
        header = self._entry(block, _KINDS.get(kind, "other"), size)
        self._pax, self._long_name, self._long_link, self._extension = PaxRecords(), None, None, b""
        return header

    def extension(self, content: bytes) -> None:
        """The content asked for. Raises ValueError for a broken pax record."""
        if self._extension == _LONG_NAME:
            self._long_name = _text(content)
        elif self._extension == _LONG_LINK:
            self._long_link = _text(content)
        elif self._extension == _PAX:
            self._pax = PaxRecords.parse(content)
        else:
            check_global(content)

    def _entry(self, block: bytes, kind: Kind, size: int) -> Header:
        pax = self._pax
        name = self._long_name or pax.path or _name(block)
        if block[156:157] == b"\0" and name.endswith("/"):
            kind = "folder"  # v7 has no type for folders
        if kind == "folder":
            name = name.rstrip("/")
        link = (self._long_link or pax.link or _text(block[157:257])) if kind in {"link", "hard link"} else ""
        size = size if pax.size_bytes is None else pax.size_bytes
        # Links, folders and devices have no content, whatever their size says.
        content = size if kind in _WITH_CONTENT else 0
        unpacked = content if pax.sparse_size_bytes is None else pax.sparse_size_bytes
        return Header(name, content, kind, link, unpacked)


def is_end(block: bytes) -> bool:
    """Whether this is one of the two empty blocks at a tar's end."""
    return not block.strip(b"\0")


def _check_sum(block: bytes) -> None:
    """Raises ValueError unless the checksum is right, of bytes without sign or, as some old writers had it, with."""
    if len(block) != BLOCK_BYTES:
        raise ValueError(f"this is no tar header: it has {len(block)} bytes")
    wanted = _octal(block[148:156], "checksum")
    unsigned = sum(block[:148]) + sum(block[156:]) + 8 * 32
    if wanted != unsigned:
        large = sum(byte > 127 for byte in block[:148]) + sum(byte > 127 for byte in block[156:])
        if wanted != unsigned - 256 * large:
            raise ValueError("this is no tar header: its checksum is wrong")


def _name(block: bytes) -> str:
    """Of the field and, in ustar and star, the prefix; GNU's dialect has times where the prefix would be."""
    name = _text(block[:100])
    if block[257:263] != b"ustar\0":
        return name
    prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _number(field: bytes, what: str) -> int:
    """Octal digits, or base 256 where the first bit is set (two's complement in the other bits)."""
    if not field[0] & 0x80:
        return _octal(field, what)
    value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    if field[0] & 0x40:
        value -= 1 << (8 * len(field) - 1)
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"a tar header with a {what} that does not fit 64 bits")
    return value


def _octal(field: bytes, what: str) -> int:
    digits = field.strip(b" \0").partition(b"\0")[0]
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise ValueError(f"this is no tar header: its {what} is {digits[:20]!r}")
    return int(digits, 8)
