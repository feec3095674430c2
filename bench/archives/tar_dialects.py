"""Writer of tars in every dialect that writers of image archives use."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Dialect = Literal["v7", "ustar", "gnu", "pax", "pax size", "pax global", "gnu forced"]
DIALECTS: tuple[Dialect, ...] = ("v7", "ustar", "gnu", "pax", "pax size", "pax global", "gnu forced")
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Member:
    """A file, or a symbolic link to `link`."""

    name: str
    content: bytes = b""
    link: str = ""


def longest_name(dialect: Dialect) -> int:
    """What a name may have in that dialect; prefixes of ustar are not relied on."""
    return 99 if dialect in {"v7", "ustar"} else 400


def tar_of(members: list[Member], dialect: Dialect) -> bytes:
    """The members in that order, with an end."""
    start = _global_comment() if dialect == "pax global" else b""
    return start + b"".join(_WRITERS[dialect](member) + _padded(member.content) for member in members) + bytes(1024)


def _info(member: Member) -> tarfile.TarInfo:
    info = tarfile.TarInfo(member.name)
    info.mtime, info.mode = 1_700_000_000, 0o644
    if member.link:
        info.type, info.linkname = tarfile.SYMTYPE, member.link
    else:
        info.size = len(member.content)
    return info


def _v7(member: Member) -> bytes:
    """No magic, a NUL for the type of a file."""
    block = bytearray(_info(member).tobuf(tarfile.USTAR_FORMAT))
    block[257:] = bytes(_BLOCK - 257)
    if not member.link:
        block[156:157] = b"\0"
    return _summed(block)


def _pax_size(member: Member) -> bytes:
    """As for an entry of 8 GiB and more: path and size in records, the size field zero, the name cut short."""
    records = _record("path", member.name) + _record("mtime", "1700000000.5")
    if not member.link:
        records += _record("size", str(len(member.content)))
    extension = tarfile.TarInfo("PaxHeaders/x")
    extension.type, extension.size = tarfile.XHDTYPE, len(records)
    info = _info(member)
    info.name, info.size = member.name[:90].encode()[:90].decode(errors="ignore") or "x", 0
    return extension.tobuf(tarfile.USTAR_FORMAT) + _padded(records) + info.tobuf(tarfile.USTAR_FORMAT)


def _gnu_forced(member: Member) -> bytes:
    """A long name in an entry of its own though it is short, and the size in base 256 though it is small."""
    name = member.name.encode() + b"\0"
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, len(name)
    info = _info(member)
    info.name = "cut short"
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (0x80 << 88 | info.size).to_bytes(12, "big")
    return long.tobuf(tarfile.GNU_FORMAT) + _padded(name) + _summed(block)


def _global_comment() -> bytes:
    return tarfile.TarInfo.create_pax_global_header({"comment": "c" * 40})


_WRITERS: dict[Dialect, Callable[[Member], bytes]] = {
    "v7": _v7,
    "ustar": lambda member: _info(member).tobuf(tarfile.USTAR_FORMAT),
    "gnu": lambda member: _info(member).tobuf(tarfile.GNU_FORMAT),
    "pax": lambda member: _info(member).tobuf(tarfile.PAX_FORMAT),
    "pax size": _pax_size,
    "pax global": lambda member: _info(member).tobuf(tarfile.PAX_FORMAT),
    "gnu forced": _gnu_forced,
}


def _summed(block: bytearray) -> bytes:
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * 32)
    return bytes(block)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % _BLOCK)


def _record(keyword: str, value: str) -> bytes:
    rest = f" {keyword}={value}\n".encode()
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest
