"""Tar headers as engines write them in `docker save`: ustar, GNU (long names, base-256 sizes) and pax.

Only what a reader needs to go from entry to entry: name, kind, size. POSIX.1-2017 pax, "pax Interchange Format".
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass

BLOCK_BYTES = 512
#: Long names and pax records are read into memory; nothing honest comes near this.
EXTENSION_LIMIT_BYTES = 1 << 20
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


@dataclass(frozen=True, slots=True)
class Header:
    """One entry. `content_bytes` follow it, then padding up to the next block."""

    name: str
    content_bytes: int
    is_file: bool

    @property
    def padding_bytes(self) -> int:
        return -self.content_bytes % BLOCK_BYTES


@dataclass(slots=True)
class HeaderReader:
    """Feed it blocks: it says which content it wants (an extension's), or gives the header of an entry."""

    _name: str | None = None
    _size: int | None = None
    _extension: bytes = b""

    def header(self, block: bytes) -> Header | int:
        """The entry that `block` begins, or how many bytes of an extension follow it. Raises ValueError."""
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as problem:
            raise ValueError(f"this is no tar header: {problem}") from problem
        if info.size < 0:
            raise ValueError(f"the entry {info.name!r} has a size of {info.size}")
        if info.type in {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE}:
            if info.size > EXTENSION_LIMIT_BYTES:
                raise ValueError(f"an extension header of {info.size} bytes")
            self._extension = info.type
            return info.size
        is_file = info.type in _REGULAR
        size = info.size if self._size is None else self._size
        # Links and folders have no content, whatever their size says.
        header = Header(self._name or info.name, size if is_file else 0, is_file)
        self._name = self._size = None
        return header

    def extension(self, content: bytes) -> None:
        """The content asked for. Raises ValueError for a broken pax record."""
        if self._extension == tarfile.GNUTYPE_LONGNAME:
            self._name = content.rstrip(b"\0").decode(errors="surrogateescape")
        elif self._extension == tarfile.XHDTYPE:
            records = _pax_records(content)
            if "path" in records:
                self._name = records["path"].decode(errors="surrogateescape")
            if "size" in records:
                self._size = int(records["size"])
                if self._size < 0:
                    raise ValueError(f"a pax record gives a size of {self._size}")


def is_end(block: bytes) -> bool:
    """Whether this is one of the two empty blocks at a tar's end."""
    return not block.strip(b"\0")


def _pax_records(content: bytes) -> dict[str, bytes]:
    """`<length> <keyword>=<value>\\n`, one after the other."""
    records: dict[str, bytes] = {}
    rest = content.rstrip(b"\0")
    while rest:
        length, space, _ = rest.partition(b" ")
        if not space or not length.isdigit() or not len(length) + 2 < int(length) <= len(rest):
            raise ValueError(f"a broken pax record: {rest[:40]!r}")
        keyword, equals, value = rest[len(length) + 1 : int(length)].removesuffix(b"\n").partition(b"=")
        if not equals:
            raise ValueError(f"a pax record without a value: {rest[:40]!r}")
        records[keyword.decode(errors="replace")] = value
        rest = rest[int(length) :]
    return records
