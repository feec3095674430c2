"""Recovery after crashes, failovers and outages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from events.bus import (
    BusUnavailable,
    Delivery,
    Outcome,
    Post,
)
from events.lease import Holder, Lease, Recovered, Taken
from events.memory.bus import MemoryBus
from events.messages import PushRequested
from events.worker.poll_interval import IDLE_POLL_SECONDS
from tests.unit.events.worker.scene import STREAMS, Scene, effect

pytestmark = pytest.mark.faked_time


async def test_what_kills_its_workers_is_a_dead_letter_after_some_crashes() -> None:
    """Counted apart from failures."""
    scene = Scene()
    await scene.say("a")
    for number in range(3):
        gone = Holder("pusher", f"gone{number}", 0.0)
        taken = await (
            scene.bus.recover(gone, [STREAMS.images], 1, []) if number else scene.bus.take(gone, [STREAMS.images], 1)
        )
        assert len(taken.leases) == 1

    async def handle(delivery: Delivery[PushRequested]) -> None:
        raise AssertionError("not run any more")

    async with scene.worker(handle, crashes=3):
        await scene.settled()
    (letter,) = await scene.letters()
    assert (letter.reason, letter.crashed, letter.failed) == ("crashed", 3, 0)


async def test_an_entry_that_a_failover_hands_out_again_goes_on() -> None:
    """The replica did not know of the delivery: the worker that holds the entry gets it again, and runs it once."""
    scene = Scene()
    await scene.say("a")
    runs = 0

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        nonlocal runs
        runs += 1
        await asyncio.sleep(30)
        return effect(delivery)

    async with scene.worker(handle) as worker:
        await asyncio.sleep(1)
        group = scene.bus._stream(STREAMS.images).group("pusher")
        group.pending.clear()
        group.delivered = "0-0"
        await asyncio.sleep(1)
        assert worker.running == 1
        await scene.settled()
    assert (runs, await scene.effects()) == (1, ["a"])
    assert scene.counters.counts == {"handled": 1}


async def test_an_entry_that_comes_back_under_another_lease_ends_its_former_run() -> None:
    """No run is left that nobody renews and nobody can end."""
    scene = Scene()
    await scene.say("a")
    ended: list[str] = []

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        if not ended:
            try:
                await asyncio.sleep(1000)
            finally:
                ended.append("first")
        return effect(delivery)

    async with scene.worker(handle):
        await asyncio.sleep(0.9)
        group = scene.bus._stream(STREAMS.images).group("pusher")
        (entry_id,) = group.pending
        scene.bus._defer(Lease(STREAMS.images, entry_id, Holder("pusher", "x"), 1, {}), group.pending[entry_id], 0)
        ended_by = asyncio.get_running_loop().time() + IDLE_POLL_SECONDS
        while not ended:  # noqa: ASYNC110  the clock is faked: this is the waiting
            await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() < ended_by
        await scene.settled()
    assert await scene.effects() == ["a"]


class Outage(MemoryBus):
    """A bus that can be away."""

    away = False

    async def take(self, holder: Holder, streams: Sequence[str], count: int) -> Taken:
        if self.away:
            raise BusUnavailable("nobody answers")
        return await super().take(holder, streams, count)

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        if self.away:
            raise BusUnavailable("nobody answers")
        return await super().renew(renewals)

    async def recover(
        self,
        holder: Holder,
        streams: Sequence[str],
        count: int,
        held: Sequence[tuple[str, str]],
        *,
        blameless: bool = False,
    ) -> Recovered:
        if self.away:
            raise BusUnavailable("nobody answers")
        return await super().recover(holder, streams, count, held, blameless=blameless)


async def test_outages_use_up_no_crashes() -> None:
    """A job that was under way each time Redis went away for longer than a lease is healthy: it is handled at last."""
    scene = Scene()
    scene.bus = bus = Outage()
    await scene.say("a")
    gone = Holder("pusher", "gone", 10.0)

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        await asyncio.sleep(5)
        return effect(delivery)

    await bus.take(gone, [STREAMS.images], 1)
    async with scene.worker(handle, crashes=1):
        bus.away = True
        await asyncio.sleep(15)
        bus.away = False
        await scene.settled()
    assert await scene.effects() == ["a"]
    assert await scene.letters() == []
    assert scene.counters.counts["takeovers"] == 1
