"""Taking gzip and zstd off a stream."""

import bz2
import gzip
import lzma
import os
from collections.abc import AsyncIterator

import pytest
import structlog
import zstandard

from services.content.decompression import unpacked
from services.errors import BadArchive

CONTENT = os.urandom(300_000) + bytes(9_000_000)


async def _pieces(content: bytes, step: int = 65_536) -> AsyncIterator[bytes]:
    for place in range(0, len(content), step):
        yield content[place : place + step]


async def _all(content: bytes, step: int = 65_536) -> bytes:
    return b"".join([piece async for piece in unpacked(_pieces(content, step), "x")])


@pytest.mark.parametrize(
    "packed",
    [
        CONTENT,
        b"",
        b"abc",
        gzip.compress(CONTENT),
        gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:]),
        gzip.compress(CONTENT) + bytes(512),
        zstandard.compress(CONTENT),
        zstandard.compress(CONTENT[:1000]) + zstandard.compress(CONTENT[1000:]),
        lzma.compress(CONTENT),
        bz2.compress(CONTENT[:1000]) + bz2.compress(CONTENT[1000:]),
    ],
    ids=["plain", "empty", "short", "gzip", "two gzip", "padded gzip", "zstd", "two zstd", "xz", "two bzip2"],
)
@pytest.mark.parametrize("step", [65_536, 1_000_003, 1 << 26])
async def test_the_content_comes_out(packed: bytes, step: int) -> None:
    """Whatever the packing and however it is cut into pieces."""
    expected = packed if packed in {CONTENT, b"", b"abc"} else CONTENT
    assert await _all(packed, step) == expected


async def test_pieces_stay_small() -> None:
    """A stream that was packed a thousandfold does not come out as one piece."""
    packed = gzip.compress(bytes(64_000_000))
    sizes = [len(piece) async for piece in unpacked(_pieces(packed, 1 << 20), "x")]
    assert sum(sizes) == 64_000_000
    assert max(sizes) <= 4 * 1024 * 1024


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (gzip.compress(CONTENT)[:-20], "cut off: its gzip packing has no end"),
        (zstandard.compress(CONTENT)[:-20], "cut off: its zstd packing has no end"),
        (gzip.compress(CONTENT)[:1000] + b"garbage" * 100, "gzip packing is broken|cut off"),
        (b"BZh91AY", "cut off: its bzip2 packing has no end"),
        (b"\xfd7zXZ\x00\x00", "cut off: its xz packing has no end"),
        (bytes.fromhex("28b52ffd0058"), "cut off: its zstd packing has no end"),
    ],
)
async def test_broken_packing_is_said(packed: bytes, reason: str) -> None:
    """Cut off, damaged, or of a kind that is not known."""
    with pytest.raises(BadArchive, match=reason):
        await _all(packed)


async def test_bytes_after_the_end_are_passed_over_with_a_warning() -> None:
    """As gunzip does; the content is whole."""
    with structlog.testing.capture_logs() as lines:
        assert await _all(gzip.compress(CONTENT) + b"something else", 100_000) == CONTENT
    assert [(line["log_level"], line["archive"], line["packing"]) for line in lines] == [("warning", "x", "gzip")]
