"""The bench of random archives, with few archives."""

from bench.archives.case import try_all
from bench.archives.generator import DAMAGES, LAYOUTS, PACKINGS, make
from bench.archives.independent import read
from bench.archives.memory import peaks
from bench.archives.tar_dialects import DIALECTS


def test_a_seed_makes_the_same_archive_and_all_kinds_come_up() -> None:
    """So that whatever is found can be made again."""
    assert make(7) == make(7)
    words = " ".join(make(seed).words for seed in range(300))
    assert all(kind in words for kind in (*DIALECTS, *PACKINGS, *LAYOUTS, *DAMAGES))


def test_other_code_reads_what_was_made() -> None:
    """Where nothing was damaged."""
    whole = [made for made in map(make, range(300)) if made.damage == "none"]
    assert all(read(made.content) == made.expected for made in whole)


async def test_nothing_crashes_is_wrong_or_left() -> None:
    """Of some hundred archives; the bench tries thousands."""
    result = await try_all(range(1000, 1250))
    assert (result.tried, result.crashed, result.wrong, result.leftovers) == (250, 0, 0, 0)
    assert result.accepted + result.refused == 250
    assert result.accepted > 15


def test_memory_is_flat() -> None:
    """A layer of 200 MB takes no more than one of 1 MB and a step of unpacking."""
    assert {name: large - small < 160 << 20 for name, small, large in peaks(1 << 20, 200 << 20)} == dict.fromkeys(
        ("plain", "gzip", "zstd", "packed layer"), True
    )
