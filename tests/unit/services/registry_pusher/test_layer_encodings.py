"""What is remembered of layers: one form for ever, whoever comes first; places as hints."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from events.bus import IndexWrite, Outcome
from events.memory.bus import MemoryBus
from events.records import ANY
from services.core.images.encodings import RAW, ZSTD, LayerEncoding
from services.core.ranges.ranges import KnownRange, RangeKeys
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.range_codecs import all_ranges_read_zstd

DIFF = "sha256:" + "d" * 64


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


async def test_the_first_form_holds_for_ever(bus: MemoryBus) -> None:
    """Of two pushers, the second gets the first one's form, whatever it would have chosen."""
    first, second = LayerEncodings(bus=bus, prefix="t"), LayerEncodings(bus=bus, prefix="t")
    assert await first.fix(DIFF, ZSTD) == ZSTD
    assert await second.fix(DIFF, RAW) == ZSTD
    assert await second.known([DIFF, "sha256:other"]) == {DIFF: ZSTD}


async def test_the_first_digest_holds(bus: MemoryBus) -> None:
    """Two pushers compressed one layer at once: the one that records first is right, the other learns of it."""
    encodings = LayerEncodings(bus=bus, prefix="t")
    await encodings.fix(DIFF, ZSTD)
    one, two = (LayerEncoding(codec="zstd", level=3, digest=f"sha256:{n}", size_bytes=n) for n in (1, 2))
    assert await encodings.measured(DIFF, one, replaces=None) == one
    assert await encodings.measured(DIFF, two, replaces=None) == one


async def test_a_digest_whose_blob_is_gone_is_replaced(bus: MemoryBus) -> None:
    """The codec stays; the blob that was made anew takes the old one's place."""
    encodings = LayerEncodings(bus=bus, prefix="t")
    old, new = (LayerEncoding(codec="zstd", level=3, digest=f"sha256:{n}", size_bytes=n) for n in (1, 2))
    await encodings.fix(DIFF, old)
    assert await encodings.measured(DIFF, new, replaces="sha256:1") == new
    assert await encodings.known([DIFF]) == {DIFF: new}


async def test_places_are_told_latest_first_and_without_ones_own(bus: MemoryBus) -> None:
    """Hints of other processes come from the bus, those of this one at once."""
    encodings = LayerEncodings(bus=bus, prefix="t")
    for repository in ("a", "b", "c", "d"):
        await bus.commit(encodings.seen([DIFF], repository))
    assert await encodings.places(DIFF, but="c") == ["d", "b", "a"]
    encodings.note(DIFF, "e")
    assert (await encodings.places(DIFF, but="d"))[0] == "e"
    assert encodings.noted(DIFF)


async def know(bus: MemoryBus, range_id: str, *abilities: str) -> None:
    keys, now = RangeKeys("t"), datetime.now(UTC)
    known = KnownRange(
        range_id=range_id,
        engine_id="e",
        engine_version="28",
        store="classic",
        platform="linux/amd64",
        started_at=now,
        abilities=abilities,
    )
    await bus.commit(
        Outcome(
            records=(keys.known(range_id).write(known, expected=ANY),),
            index=(IndexWrite(keys.known_index, range_id, now.timestamp()),),
        )
    )


async def test_zstd_waits_for_the_last_range_that_reads_it(bus: MemoryBus) -> None:
    """No range known: no. All read it: yes. One old engine: no."""
    assert not await all_ranges_read_zstd(bus, "t")
    await know(bus, "r1", "zstd", "thin_docker")
    assert await all_ranges_read_zstd(bus, "t")
    await know(bus, "r2", "thin_docker")
    assert not await all_ranges_read_zstd(bus, "t")
