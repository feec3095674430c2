"""Zips are read as streams, by their local headers."""

from __future__ import annotations

import io
import random
import struct
import zipfile

import pytest

from services.core.archives.zip_stream import EntryStart, ZipParser

CONTENT = {"manifest.json": b"{}", "empty": b"", "images/a.tar": b"x" * 700_000 + random.Random(1).randbytes(90_000)}


class _Pipe(io.RawIOBase):
    """A file that cannot go back, as a writer of streams has it."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.written += bytes(data)  # type: ignore[call-overload]  # anything with a buffer
        return len(bytes(data))  # type: ignore[call-overload]


def zipped(content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, *, piped: bool = False) -> bytes:
    """A zip as Python writes it, into a file or into a pipe."""
    pipe, file = _Pipe(), io.BytesIO()
    with zipfile.ZipFile(pipe if piped else file, "w", method) as made:
        for name, data in content.items():
            with made.open(name, "w", force_zip64=name.startswith("images")) as entry:
                entry.write(data)
    return bytes(pipe.written) if piped else file.getvalue()


def _read(data: bytes, step: int = 1 << 20) -> dict[str, bytes]:
    parser, found, name = ZipParser(), dict[str, bytes](), ""
    for start in range(0, len(data), step):
        for event in parser.feed(data[start : start + step]):
            if isinstance(event, EntryStart):
                name, found[event.name] = event.name, b""
            elif isinstance(event, bytes):
                found[name] += event
    parser.finish()
    return found


@pytest.mark.parametrize("step", [1 << 20, 1013])
@pytest.mark.parametrize(
    ("method", "piped"), [(zipfile.ZIP_STORED, False), (zipfile.ZIP_DEFLATED, False), (zipfile.ZIP_DEFLATED, True)]
)
def test_entries_come_in_their_order(method: int, piped: bool, step: int) -> None:
    """Stored and deflated, of 32 and 64 bits, with data descriptors where the writer could not go back."""
    assert _read(zipped(CONTENT, method, piped=piped), step) == CONTENT


def test_a_bomb_comes_in_small_pieces() -> None:
    """Whoever reads can stop: a gigabyte of zeros in a megabyte is never in memory as a whole."""
    bomb = zipped({"zeros": bytes(50_000_000)})
    pieces = [event for event in ZipParser().feed(bomb) if isinstance(event, bytes)]
    assert max(map(len, pieces)) <= 256 * 1024
    assert sum(map(len, pieces)) == 50_000_000


def _with_flag(data: bytes, flag: int) -> bytes:
    return data[:6] + struct.pack("<H", flag) + data[8:]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"hello, this is no zip at all, whatever it says", "no"),
        (zipped(CONTENT)[:2000], "cut off"),
        (zipped({"a": b"1"}, piped=True, method=zipfile.ZIP_STORED), "without its size"),
        (zipped({"a": b"1"}, method=zipfile.ZIP_LZMA), "method 14"),
        (_with_flag(zipped({"a": b"1"}), 1), "encrypted"),
        (zipped({"a": b"12345"}, zipfile.ZIP_STORED).replace(b"12345", b"12346", 1), "checksum"),
        (zipped({"a": b"12345" * 9}, piped=True).replace(b"PK\x07\x08", b"PK\x07\x09", 1), "descriptor"),
    ],
)
def test_what_cannot_be_read_is_refused(data: bytes, why: str) -> None:
    """With the reason."""
    with pytest.raises(ValueError, match=why):
        _read(data)
