"""What the bus in memory keeps, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from events.bus import NOTHING
from events.envelope import Envelope
from events.lease import Holder
from events.memory.bus import MemoryBus
from events.memory.store import REMEMBER_SECONDS
from events.messages import PushRequested


@pytest.mark.faked_time
async def test_what_was_seen_and_done_is_forgotten_after_a_week() -> None:
    """As on Redis: the embedded run does not grow for ever, and within the week a repeat is absorbed."""
    bus = MemoryBus()
    said = [Envelope(message=PushRequested(reference="a"), source="t", subject=str(number)) for number in range(5)]
    for envelope in said:
        await bus.publish("s", envelope, envelope)
        (lease,) = (await bus.take(Holder("g", "w"), ["s"], 9)).leases
        await bus.finish(lease, NOTHING)
        await asyncio.sleep(REMEMBER_SECONDS / 2 - 1)
    stream = bus._stream("s")
    assert (len(stream.seen), len(stream.group("g").outcomes)) == (3, 3)
    await bus.publish("s", said[-1])
    assert len(stream.entries) == 5
