"""`services.range_gateway.inbox_watch`: agents are woken, whoever else comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import TransferCancelled
from events.streams import Streams
from services.range_gateway.inbox_watch import InboxWatch
from tests.unit.services.range_gateway.site import until

STREAMS = Streams()


async def post(bus: MemoryBus, range_id: str) -> None:
    message = TransferCancelled(transfer_id="t")
    await bus.publish(STREAMS.inbox(range_id), Envelope(message=message, source="deployer@h", subject="x"))


@pytest.fixture
async def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
async def watch(bus: MemoryBus) -> AsyncIterator[InboxWatch]:
    found = InboxWatch(bus, STREAMS)
    running = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_only_the_range_that_has_something_is_woken(watch: InboxWatch, bus: MemoryBus) -> None:
    """Each entry wakes the listeners of its own range."""
    woken, other = asyncio.Event(), asyncio.Event()
    with watch.listening("a", woken.set), watch.listening("b", other.set):
        async with asyncio.timeout(10):
            while not woken.is_set():
                await post(bus, "a")
                await asyncio.sleep(0.01)
        assert not other.is_set()


async def test_a_range_that_comes_and_goes_disturbs_nobody(watch: InboxWatch, bus: MemoryBus) -> None:
    """The read over all inboxes goes on where it was: what comes meanwhile wakes its range."""
    count = 0

    def met() -> None:
        nonlocal count
        count += 1

    first = asyncio.Event()
    with watch.listening("a", met), watch.listening("a", first.set):
        async with asyncio.timeout(10):
            while not first.is_set():
                await post(bus, "a")
                await asyncio.sleep(0.01)
            begun = count
            for number in range(20):
                with watch.listening(f"new-{number}", met):
                    await post(bus, "a")
                    await asyncio.sleep(0)

            async def all_came() -> bool:
                return count >= begun + 20

            await until(all_came)
