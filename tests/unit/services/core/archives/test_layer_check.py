"""Looking into layers as they go by."""

import bz2
import gzip
import lzma
from collections.abc import Callable

import pytest
import zstandard

from services.core.archives.entry_rules import ArchiveLimits, BeyondLimit
from services.core.archives.layer_check import LayerCheck, Unpacked
from tests.unit.services.core.archives.tars import tar

FILES = {"a": b"x" * 1000, "b": b"", "c": bytes(5000)}
LIMITS = ArchiveLimits(layer_entries=5, unpacked_bytes=20_000)


def _fed(content: bytes, step: int, limits: ArchiveLimits = LIMITS) -> tuple[Unpacked, LayerCheck]:
    unpacked = Unpacked(limits)
    check = LayerCheck(unpacked)
    for place in range(0, len(content), step):
        check.feed(memoryview(content[place : place + step]))
    return unpacked, check


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress, lzma.compress, bz2.compress])
@pytest.mark.parametrize("step", [1, 100, 1 << 20])
def test_files_are_counted_whatever_the_packing(pack: Callable[[bytes], bytes], step: int) -> None:
    """Each takes a block beside its content."""
    unpacked, _ = _fed(pack(tar(FILES)), step)
    assert (unpacked.layer_entries, unpacked.layer_bytes) == (3, 3 * 512 + 6000)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize(
    "layer", [tar({str(number): b"" for number in range(6)}), tar({"a": bytes(20_000)}), tar({}) + bytes(20_000)]
)
def test_a_layer_beyond_a_limit_is_refused(pack: Callable[[bytes], bytes], layer: bytes) -> None:
    """Too many files, too many bytes in files, too many bytes of anything."""
    with pytest.raises(BeyondLimit):
        _fed(pack(layer), 4096)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"no tar " * 1000, gzip.compress(b"no tar " * 1000, mtime=0), b"\x1f\x8bjunk" * 99]
)
def test_what_is_no_layer_counts_nothing(content: bytes) -> None:
    """The engine refuses it."""
    assert _fed(content, 100)[0].layer_entries == 0
