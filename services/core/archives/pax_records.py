"""Extended headers of pax tars: the records that change how an entry is read.

POSIX.1-2017, pax, "pax Extended Header". Go's `archive/tar`, with which engines read archives, decides where readers
differ: an empty value means that the header's own field counts, and a global header changes no entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

#: Records that change what an entry is called, where it links to or how long it is. Sparse files: GNU tar's manual.
DECISIVE = frozenset({"path", "linkpath", "size", "GNU.sparse.name", "GNU.sparse.size", "GNU.sparse.realsize"})
#: A 64-bit size has 19 decimal digits at most.
_SIZE_DIGITS = 19


@dataclass(frozen=True, slots=True)
class PaxRecords:
    """What an extended header says of the entry after it. None: it says nothing of this."""

    path: str | None = None
    link: str | None = None
    size_bytes: int | None = None
    sparse_size_bytes: int | None = None

    @classmethod
    def parse(cls, content: bytes) -> PaxRecords:
        """The decisive records of an extended header. Raises ValueError for a broken one."""
        records = {name: value for name, value in _records(content) if name in DECISIVE and value}
        sparse = records.get("GNU.sparse.realsize", records.get("GNU.sparse.size"))
        return cls(
            path=_text(records, "GNU.sparse.name") or _text(records, "path"),
            link=_text(records, "linkpath"),
            size_bytes=_size(records["size"]) if "size" in records else None,
            sparse_size_bytes=_size(sparse) if sparse is not None else None,
        )


def check_global(content: bytes) -> None:
    """Raises ValueError for a global header that readers take differently: one with a decisive record.

    Engines pass over global headers; other readers apply them to every entry that follows.
    """
    for name, value in _records(content):
        if name in DECISIVE and value:
            raise ValueError(
                f"a global header sets {name} for all entries, which engines ignore and other readers do not"
            )


def _records(content: bytes) -> Iterator[tuple[str, bytes]]:
    """`<length> <keyword>=<value>\\n`, one after the other; the length counts the whole record, in decimal."""
    place = 0
    while place < len(content):
        space = content.find(b" ", place, place + 20)
        digits = content[place:space] if space > place else b""
        if not digits.isdigit():
            raise ValueError(f"a broken pax record: {content[place : place + 40]!r}")
        end = place + int(digits)
        keyword, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not space + 1 < end <= len(content) or content[end - 1 : end] != b"\n" or not equals or not keyword:
            raise ValueError(f"a broken pax record: {content[place : place + 40]!r}")
        yield keyword.decode(errors="replace"), value
        place = end


def _text(records: Mapping[str, bytes], name: str) -> str | None:
    value = records.get(name)
    if value is None:
        return None
    if b"\0" in value:
        raise ValueError(f"a pax record has a zero byte in its {name}")
    return value.decode(errors="surrogateescape")


def _size(value: bytes) -> int:
    if not value.isdigit() or len(value) > _SIZE_DIGITS:
        raise ValueError(f"a pax record gives a size of {value[:40]!r}")
    return int(value)
