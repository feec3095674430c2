"""The relay of ranges' progress, where one of them is hostile."""

from __future__ import annotations

import asyncio

import pytest

from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import TransferProgress
from events.streams import Streams
from services.core.ranges.limits import RangeLimits
from services.tracker.progress_relay import NOTE_CHARACTERS, ProgressRelay

pytestmark = pytest.mark.faked_time
STREAMS = Streams("cyroid")


def told(transfer_id: str, note: str = "") -> TransferProgress:
    """Something of a pull."""
    return TransferProgress(transfer_id=transfer_id, reference="a:1", kind="pull", phase="downloading", note=note)


async def _say(bus: MemoryBus, range_id: str, *words: TransferProgress) -> None:
    said = [Envelope(message=word, source="agent@x", subject="x") for word in words]
    await bus.publish(STREAMS.range_progress(range_id), *said)


async def _copies(bus: MemoryBus) -> list[TransferProgress]:
    entries = [entry async for entry in bus.tail([STREAMS.progress], after="0", follow=False)]
    return [
        entry.envelope.message
        for entry in entries
        if entry.envelope is not None and isinstance(entry.envelope.message, TransferProgress)
    ]


async def test_a_flood_is_dropped_and_an_honest_range_comes_through() -> None:
    """Of 5,000 words at once a burst is copied, cut; then as many a second as an honest agent may tell."""
    bus, limits = MemoryBus(), RangeLimits()
    clock = asyncio.get_running_loop().time
    relay = ProgressRelay(bus=bus, streams=STREAMS, clock=clock, limits=limits)
    await _say(bus, "evil", *(told("d1.0.1", "n" * 2000) for _ in range(5000)))
    await _say(bus, "good", told("d2.0.1"))
    names = [STREAMS.range_progress("evil"), STREAMS.range_progress("good")]
    running = asyncio.create_task(relay.follow(names, "0"))
    await asyncio.sleep(0.01)
    copies = await _copies(bus)
    evil = [one for one in copies if one.range_id == "evil"]
    assert len(evil) == int(limits.progress_burst)
    assert {len(one.note) for one in evil} == {NOTE_CHARACTERS}
    assert [one.transfer_id for one in copies if one.range_id == "good"] == ["d2.0.1"]
    await asyncio.sleep(10)
    await _say(bus, "evil", *(told("d1.0.1") for _ in range(5000)))
    await asyncio.sleep(0.01)
    again = [one for one in await _copies(bus) if one.range_id == "evil"]
    assert len(again) - len(evil) == pytest.approx(10 * limits.progress_per_second, abs=2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
