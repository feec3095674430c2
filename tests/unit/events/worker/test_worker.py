"""Which streams a worker reads, and how it ends: drained, or cancelled."""

from __future__ import annotations

import asyncio

import pytest

from events.bus import (
    Delivery,
    Outcome,
    Post,
)
from events.envelope import Envelope
from events.lease import Holder, Lease
from events.messages import PushRequested
from events.subscription import Handlers, Subscription
from events.worker.in_flight import InFlightEntries, InFlightEntry
from events.worker.worker import Worker
from tests.unit.events.worker.scene import STREAMS, Scene, effect

pytestmark = pytest.mark.faked_time


async def test_drain_lets_finish_what_can_and_hands_back_the_rest() -> None:
    """Within the grace; the rest is another worker's at once, not counted as anything."""
    scene = Scene()
    await scene.say("short")
    await scene.say("long")
    loop = asyncio.get_running_loop()

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        await asyncio.sleep(2 if delivery.envelope.subject == "short" else 1000)
        return effect(delivery)

    async def quick(delivery: Delivery[PushRequested]) -> Outcome:
        assert delivery.attempt == 1
        return effect(delivery)

    async with scene.worker(handle) as worker:
        await asyncio.sleep(1)
        await scene.say("later")
        await asyncio.sleep(1)
        started = loop.time()
        await worker.drain(5)
        assert loop.time() - started < 6
        assert await scene.effects() == ["short"]
        started = loop.time()
        async with scene.worker(quick):
            await scene.settled()
            assert loop.time() - started < 1
    assert sorted(await scene.effects()) == ["later", "long", "short"]
    assert scene.counters.counts["handed_back"] >= 1


async def test_a_second_drain_hands_back_everything_now() -> None:
    """A second SIGTERM does not wait for the first one's grace."""
    scene = Scene()
    await scene.say("a")

    async def handle(delivery: Delivery[PushRequested]) -> None:
        await asyncio.sleep(1000)

    async with scene.worker(handle) as worker:
        await asyncio.sleep(1)
        started = asyncio.get_running_loop().time()
        first = asyncio.create_task(worker.drain(500))
        await asyncio.sleep(1)
        await worker.drain(0)
        await first
        assert asyncio.get_running_loop().time() - started < 3
    taken = await scene.bus.take(Holder("pusher", "x", 10), [STREAMS.images], 1)
    assert [(lease.failed, lease.crashed) for lease in taken.leases] == [(0, 0)]


async def test_a_cancelled_worker_hands_back_too() -> None:
    """Cancelling run is a drain without grace."""
    scene = Scene()
    await scene.say("a")

    async def handle(delivery: Delivery[PushRequested]) -> None:
        await asyncio.sleep(1000)

    subscription = Subscription(
        group="pusher",
        streams=lambda: [STREAMS.images],
        handlers=Handlers().on(PushRequested, handle, key=None, give_up=None),
        dead_stream=STREAMS.dead,
    )
    running = asyncio.create_task(Worker(scene.bus, subscription).run())
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len((await scene.bus.take(Holder("pusher", "x", 10), [STREAMS.images], 1)).leases) == 1


async def test_a_growing_list_of_streams_is_followed() -> None:
    """A stream that appears later is read, and a busy one does not starve it."""
    scene = Scene()
    streams = [f"{STREAMS.images}:1"]
    for i in range(50):
        await scene.say(f"busy {i}", f"{STREAMS.images}:1")
    order: list[str] = []

    async def handle(delivery: Delivery[PushRequested]) -> None:
        order.append(delivery.envelope.subject)
        await asyncio.sleep(1)

    async with scene.worker(handle, streams=lambda: streams, slots=1):
        await asyncio.sleep(5)
        streams.append(f"{STREAMS.images}:2")
        await scene.say("new", f"{STREAMS.images}:2")
        await asyncio.sleep(5)
        assert "new" in order
        await asyncio.sleep(60)
    assert len(order) == 51


async def test_an_entry_that_is_lost_before_its_handler_began_frees_its_slot() -> None:
    """A reply that came when its leases were over: all is cancelled at once, and the worker goes on."""
    runs, holder = InFlightEntries(1), Holder("pusher", "w", 10.0)
    run = InFlightEntry(Lease(stream="s", entry_id="1-0", holder=holder, fields={}, deliveries=1), confirmed=-15.0)
    runs.add(run)

    async def handle() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            runs.remove(run)

    run.task = asyncio.create_task(handle())
    run.end("lost")
    await runs.until_free()
    assert run.fate == "lost"


async def test_a_timer_fires_while_all_slots_are_taken() -> None:
    """Another group may be waiting for it."""
    scene = Scene()
    await scene.say("busy")
    gate = asyncio.Event()

    async def handle(delivery: Delivery[PushRequested]) -> None:
        await gate.wait()

    async with scene.worker(handle, slots=1):
        await asyncio.sleep(1)
        envelope = Envelope(message=PushRequested(reference="later"), source="test", subject="later")
        await scene.bus.commit(Outcome(posts=(Post(STREAMS.images, envelope, due=envelope.time),)))
        await asyncio.sleep(5)
        entries = scene.bus.tail([STREAMS.images], after="0", follow=False)
        assert [entry.envelope.subject async for entry in entries if entry.envelope] == ["busy", "later"]
        gate.set()
