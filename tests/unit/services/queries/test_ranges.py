"""How roles learn of ranges, in faked time."""

from __future__ import annotations

import asyncio

import pytest

from events.bus import IndexWrite, Outcome
from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import Failure, ImageFailed
from events.streams import Streams
from services.core.ranges.ranges import RangeKeys
from services.queries.ranges import FIND_SECONDS, RangeFinder
from tests.simulation import loop_clock

pytestmark = pytest.mark.faked_time

STREAMS, KEYS = Streams("cyroid"), RangeKeys("cyroid")


class LargeBus(MemoryBus):
    """A bus with so many keys that a walk through them takes a second."""

    walks = 0

    async def discover(self, pattern: str) -> list[str]:
        self.walks += 1
        await asyncio.sleep(1.0)
        return await super().discover(pattern)


async def test_ranges_are_found_without_a_walk_through_all_keys() -> None:
    """One that was asked for or announced itself is found in the next round; walks become rare where they are long."""
    bus = LargeBus(clock=loop_clock)
    finder = RangeFinder(bus=bus, streams=STREAMS, clock=loop_clock)
    for number in range(100):
        key = KEYS.asked if number % 2 else KEYS.known_index
        await bus.commit(Outcome(index=(IndexWrite(key, f"r{number}", loop_clock().timestamp()),)))
        await finder.find()
        assert f"r{number}" in finder.found
        await asyncio.sleep(FIND_SECONDS)
    assert bus.walks <= 5


async def test_a_range_that_nobody_announced_is_found_by_its_outbox() -> None:
    """Its first word lies there; a small installation is walked through every round."""
    bus = MemoryBus(clock=loop_clock)
    finder = RangeFinder(bus=bus, streams=STREAMS, clock=loop_clock)
    await finder.find()
    word = ImageFailed(transfer_id="t", error=Failure(code="c", message="m"))
    await bus.publish(STREAMS.outbox("r1"), Envelope(message=word, source="a", subject="s"))
    await finder.find()
    assert list(finder.found) == ["r1"]
