"""Taking packings off."""

import bz2
import gzip
import lzma
import os

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from services.core.archives.packings import MAGIC_BYTES, packing_of, unpacker

CONTENT = b"some content, not long " * 300
SKIPPABLE = bytes.fromhex("50 2a 4d 18 04 00 00 00 00 00 00 00")
FRAME = zstandard.compress(CONTENT)
LONG = zstandard.ZstdCompressor(
    compression_params=zstandard.ZstdCompressionParameters.from_level(3, window_log=28)
).compressobj()


def _unpacked(packed: bytes, step: int = 1 << 20) -> tuple[bytes, bool]:
    unpack = unpacker(packing_of(packed[:MAGIC_BYTES]))
    found = b"".join(
        piece for place in range(0, len(packed), step) for piece in unpack.feed(packed[place : place + step])
    )
    unpack.finish()
    return found, unpack.trailing_garbage


@pytest.mark.parametrize(
    ("packed", "times", "garbage"),
    [
        (CONTENT, 1, False),
        (gzip.compress(CONTENT) * 2, 2, False),
        (gzip.compress(CONTENT) + bytes(700), 1, False),
        (gzip.compress(CONTENT) + b"garbage", 1, True),
        (gzip.compress(CONTENT) + bytes(9) + b"\x1f", 1, True),
        (FRAME, 1, False),
        (SKIPPABLE + FRAME, 1, False),
        (SKIPPABLE + FRAME + SKIPPABLE + FRAME + SKIPPABLE, 2, False),
        (lzma.compress(CONTENT) * 3, 3, False),
        (lzma.compress(CONTENT) + b"garbage", 1, True),
        (bz2.compress(CONTENT) * 2, 2, False),
        (bz2.compress(CONTENT) + b"BZ", 1, True),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 4096, 1 << 20])
def test_members_and_what_follows_them(packed: bytes, times: int, garbage: bool, step: int) -> None:
    """Several in a row are one stream, however it is cut; what is none is passed over and told."""
    assert _unpacked(packed, step) == (CONTENT * times, garbage)


@pytest.mark.parametrize("first", range(0x50, 0x60))
def test_every_skippable_frame_is_known(first: int) -> None:
    """RFC 8878 has sixteen magic numbers for them."""
    packed = bytes([first]) + SKIPPABLE[1:] + FRAME
    assert packing_of(packed) == "zstd"
    assert _unpacked(packed) == (CONTENT, False)


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (gzip.compress(CONTENT)[:-3], "cut off: its gzip packing has no end"),
        (gzip.compress(CONTENT) * 2 + b"\x1f\x8b" + bytes(20), "its gzip packing is broken"),
        (FRAME[:-3], "cut off: its zstd packing has no end"),
        (FRAME + b"garbage", "its zstd packing is broken"),
        (LONG.compress(os.urandom(100_000)) + LONG.flush(), "its zstd window is too large: .* --long=27"),
        (lzma.compress(CONTENT)[:-3], "cut off: its xz packing has no end"),
        (lzma.compress(CONTENT)[:-40] + bytes(40), "its xz packing is broken"),
        (
            lzma.compress(CONTENT, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]),
            "its xz dictionary is too large",
        ),
        (bz2.compress(CONTENT)[:-3], "cut off: its bzip2 packing has no end"),
        (b"BZh9" + bytes(100), "its bzip2 packing is broken"),
    ],
)
def test_what_cannot_be_unpacked_says_why(packed: bytes, reason: str) -> None:
    """Cut off, broken, or too large for the memory that there is."""
    with pytest.raises(ValueError, match=reason):
        _unpacked(packed)


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(bytes(200 << 20)), zstandard.compress(bytes(200 << 20)), bz2.compress(bytes(200 << 20))],
    ids=["gzip", "zstd", "bzip2"],
)
def test_a_step_is_bounded_however_well_it_was_packed(packed: bytes) -> None:
    """So that a bomb is noticed long before memory is full."""
    sizes = [len(piece) for piece in unpacker(packing_of(packed[:MAGIC_BYTES])).feed(packed)]
    assert sum(sizes) == 200 << 20
    assert max(sizes) <= 32 << 20


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh9"]))
def test_any_bytes_end_in_content_or_in_one_kind_of_error(noise: bytes, magic: bytes) -> None:
    """Nothing else comes out of the libraries."""
    try:
        found, _ = _unpacked(magic + noise, 64)
    except ValueError:
        return
    assert isinstance(found, bytes)
