"""What Prometheus is told when something is stuck."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress

import pytest

from events.bus import Delivery, Outcome, Permanent
from events.envelope import Envelope
from events.lease import Holder
from events.memory.bus import MemoryBus
from events.messages import PushRequested
from events.streams import Streams
from events.subscription import Handler, Handlers, Subscription
from events.worker.worker import Worker
from services.runtime.metrics import REGISTRY, WorkerMetrics

pytestmark = pytest.mark.faked_time

STREAMS = Streams("test")


@pytest.fixture
def group(request: pytest.FixtureRequest) -> str:
    """A group of this test's own: counters are the process'."""
    return f"metrics-{request.node.name}"


def counted(group: str, event: str) -> float:
    return REGISTRY.get_sample_value("cyroid_bus_events_total", {"group": group, "event": event}) or 0.0


class Heard(WorkerMetrics):
    """Counts as in production, and says when an event was counted."""

    def __init__(self) -> None:
        self.events: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def count(self, group: str, counter: str, amount: int = 1) -> None:
        super().count(group, counter, amount)
        self.events[counter].set()


def worker(bus: MemoryBus, group: str, handler: Handler[PushRequested], heard: Heard) -> Worker:
    subscription = Subscription(
        group=group,
        streams=lambda: [STREAMS.images],
        handlers=Handlers().on(PushRequested, handler, key=None, give_up=None),
        dead_stream=STREAMS.dead,
        lease_seconds=10.0,
    )
    return Worker(bus, subscription, name="w", observer=heard)


async def until(heard: Heard, event: str, running: asyncio.Task[None]) -> None:
    """Run on until it is counted, then end."""
    try:
        async with asyncio.timeout(60):
            await heard.events[event].wait()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def said(bus: MemoryBus) -> Envelope:
    envelope = Envelope(message=PushRequested(reference="a"), source="test", subject="a")
    await bus.publish(STREAMS.images, envelope)
    return envelope


async def nothing(delivery: Delivery[PushRequested]) -> Outcome:
    return Outcome()


async def never(delivery: Delivery[PushRequested]) -> Outcome:
    await asyncio.Event().wait()
    return Outcome()


async def test_a_lease_that_another_took_is_counted(group: str) -> None:
    """cyroid_bus_events_total{event="lost_leases"}."""
    bus, heard = MemoryBus(), Heard()
    await said(bus)
    running = asyncio.create_task(worker(bus, group, never, heard).run())
    await asyncio.sleep(1)
    bus._stream(STREAMS.images).group(group).leases.clear()  # so that the thief's own length counts
    thief = await bus.recover(Holder(group, "thief", 0.0), [STREAMS.images], 1, [])
    assert len(thief.leases) == 1
    await until(heard, "lost_leases", running)
    assert counted(group, "lost_leases") == 1


async def test_an_entry_of_a_vanished_worker_is_counted(group: str) -> None:
    """cyroid_bus_events_total{event="takeovers"}."""
    bus, heard = MemoryBus(), Heard()
    await said(bus)
    await bus.take(Holder(group, "vanished", 10.0), [STREAMS.images], 1)
    await until(heard, "takeovers", asyncio.create_task(worker(bus, group, nothing, heard).run()))
    assert counted(group, "takeovers") == 1


async def test_an_entry_whose_handover_was_lost_is_counted(group: str) -> None:
    """cyroid_bus_events_total{event="phantoms"}: taken in the worker's own name, unknown to it."""
    bus, heard = MemoryBus(), Heard()
    await said(bus)
    one = worker(bus, group, nothing, heard)
    await bus.take(one.holder, [STREAMS.images], 1)
    await until(heard, "phantoms", asyncio.create_task(one.run()))
    assert counted(group, "phantoms") == 1


async def test_a_duplicate_of_a_finished_event_is_counted(group: str) -> None:
    """cyroid_bus_events_total{event="duplicates"}: one event that came under two entries."""
    bus, heard = MemoryBus(), Heard()
    envelope = await said(bus)
    holder = Holder(group, "first", 10.0)
    (lease,) = (await bus.take(holder, [STREAMS.images], 1)).leases
    assert await bus.finish(lease, Outcome())
    stream = bus._stream(STREAMS.images)
    stream.add(dict(stream.entries[lease.entry_id]))  # as a publisher without idempotence adds it
    await until(heard, "duplicates", asyncio.create_task(worker(bus, group, nothing, heard).run()))
    assert counted(group, "duplicates") == 1
    assert envelope.id.encode() in lease.identity


async def test_an_entry_given_up_is_counted(group: str) -> None:
    """cyroid_bus_events_total{event="dead_letters"}."""

    async def refuse(delivery: Delivery[PushRequested]) -> Outcome:
        raise Permanent("no")

    bus, heard = MemoryBus(), Heard()
    await said(bus)
    await until(heard, "dead_letters", asyncio.create_task(worker(bus, group, refuse, heard).run()))
    assert counted(group, "dead_letters") == 1
