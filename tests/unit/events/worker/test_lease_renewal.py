"""Leases are kept while handlers run, and given up in time; progress travels with them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from events.bus import (
    BusRefused,
    BusUnavailable,
    Delivery,
    Outcome,
    Post,
)
from events.lease import Holder, Lease
from events.memory.bus import MemoryBus
from events.messages import PushRequested, TransferProgress
from tests.unit.events.worker.scene import STREAMS, Scene, effect

pytestmark = pytest.mark.faked_time


async def test_a_lost_lease_cancels_the_handler() -> None:
    """Another worker has the entry; what the first would have said is never said."""
    scene = Scene()
    await scene.say("a")
    cancelled = asyncio.Event()

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return effect(delivery)

    async with scene.worker(handle):
        await asyncio.sleep(1)
        scene.bus._stream(STREAMS.images).group("pusher").leases.clear()  # so that the thief's own length counts
        (lease,) = (await scene.bus.recover(Holder("pusher", "thief", 0.0), [STREAMS.images], 1, [])).leases
        async with asyncio.timeout(5):
            await cancelled.wait()
        await scene.bus.finish(lease, Outcome())
    assert await scene.effects() == []
    assert scene.counters.counts["lost_leases"] == 1


class Mute(MemoryBus):
    """A bus whose renewals do not come through."""

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        raise BusUnavailable("nobody answers")


async def test_a_handler_ends_before_its_unconfirmed_lease_does() -> None:
    """No renewal for most of a lease: it is cancelled while nobody else can have the entry yet."""
    scene = Scene()
    scene.bus = Mute()
    await scene.say("a")
    loop = asyncio.get_running_loop()
    spans: list[float] = []

    async def handle(delivery: Delivery[PushRequested]) -> None:
        started = loop.time()
        try:
            await asyncio.sleep(100)
        finally:
            spans.append(loop.time() - started)

    async with scene.worker(handle):
        async with asyncio.timeout(30):
            while not spans:  # noqa: ASYNC110  the clock is faked: this is the waiting
                await asyncio.sleep(0.1)
    assert 5.0 < spans[0] < 10.0


class Hanging(MemoryBus):
    """A bus whose renewals fail at once, and later hang."""

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        if self._now() - self.began > 6.5:
            await asyncio.sleep(1000)
        raise BusUnavailable("nobody answers")

    began = 0.0


async def test_a_renewal_that_hangs_does_not_delay_the_end() -> None:
    """Failing at once and then hanging is as long unconfirmed: three quarters of a lease, and no more."""
    scene = Scene()
    scene.bus = bus = Hanging()
    loop = asyncio.get_running_loop()
    cancelled = asyncio.Event()
    await scene.say("a")

    async def handle(delivery: Delivery[PushRequested]) -> None:
        bus.began = loop.time()
        try:
            await asyncio.sleep(100)
        finally:
            cancelled.set()

    async with scene.worker(handle):
        await cancelled.wait()
        assert 7.0 < loop.time() - bus.began < 8.1


async def test_a_long_handler_keeps_its_lease_and_tells_its_progress() -> None:
    """Many leases long, one run; the latest progress goes to the progress stream and into the group's status."""
    scene = Scene()
    await scene.say("a")
    runs = 0

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        nonlocal runs
        runs += 1
        for done in range(50):
            delivery.report(
                TransferProgress(transfer_id="t", reference="a", kind="push", phase="sending", done_bytes=done)
            )
            await asyncio.sleep(2)
        return effect(delivery)

    async with scene.worker(handle, progress_stream=STREAMS.progress), scene.worker(handle):
        await asyncio.sleep(30)
        (status,) = await scene.bus.groups([STREAMS.images])
        assert status.entries[0].progress is not None
        await scene.settled()
    assert (runs, await scene.effects()) == (1, ["a"])
    told = [entry async for entry in scene.bus.tail([STREAMS.progress], after="0", follow=False)]
    assert len(told) > 20
    last = told[-1].envelope
    assert last is not None
    assert isinstance(last.message, TransferProgress)
    assert last.message.done_bytes == 49


async def test_progress_is_told_once_a_second_however_long_the_lease() -> None:
    """Not with the lease's renewals, which are rarer, nor with each report, of which there are many more."""
    scene = Scene()
    await scene.say("a")

    async def handle(delivery: Delivery[PushRequested]) -> None:
        for done in range(200):
            delivery.report(
                TransferProgress(transfer_id="t", reference="a", kind="push", phase="sending", done_bytes=done)
            )
            await asyncio.sleep(0.1)

    async with scene.worker(handle, lease_seconds=300.0, progress_stream=STREAMS.progress):
        await scene.settled()
    told = [entry async for entry in scene.bus.tail([STREAMS.progress], after="0", follow=False)]
    assert 18 <= len(told) <= 22


@pytest.mark.parametrize("note", ["\udcff", "x" * 2_000_000], ids=["text", "size"])
async def test_a_note_that_cannot_be_told_costs_nothing_but_itself(note: str) -> None:
    """Neither the lease nor the outcome; what is reported after it is told."""
    scene = Scene()
    await scene.say("a")

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        for said in (note, "fine", note):
            delivery.report(TransferProgress(transfer_id="t", reference="a", kind="push", phase="sending", note=said))
            await asyncio.sleep(15)
        return effect(delivery)

    async with scene.worker(handle, progress_stream=STREAMS.progress):
        await scene.settled()
    assert await scene.effects() == ["a"]
    assert scene.counters.counts == {"handled": 1}
    told = [entry.envelope async for entry in scene.bus.tail([STREAMS.progress], after="0", follow=False)]
    assert [one.message.note for one in told if one and isinstance(one.message, TransferProgress)] == ["fine"]


class Choosy(MemoryBus):
    """A bus that takes no progress, and whose first answer to a renewal gets lost."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__()
        self.refuses = refuses
        self.lost = 0

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        if any(news for _, news in renewals):
            if self.refuses:
                raise BusRefused("progress is no stream but a string")
            if not self.lost:
                self.lost += 1
                raise BusUnavailable("nobody answers")
        return await super().renew(renewals)


@pytest.mark.parametrize("refuses", [True, False])
async def test_progress_and_leases_do_not_cost_each_other(*, refuses: bool) -> None:
    """A lease is renewed where its note is refused; a note is told again where its renewal failed."""
    scene = Scene()
    scene.bus = Choosy(refuses=refuses)
    await scene.say("a")

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        delivery.report(TransferProgress(transfer_id="t", reference="a", kind="push", phase="sending"))
        await asyncio.sleep(30)
        told = [entry async for entry in scene.bus.tail([STREAMS.progress], after="0", follow=False)]
        assert len(told) == (0 if refuses else 1)
        return effect(delivery)

    async with scene.worker(handle, progress_stream=STREAMS.progress):
        await scene.settled()
    assert await scene.effects() == ["a"]
    assert scene.counters.counts == {"handled": 1}
