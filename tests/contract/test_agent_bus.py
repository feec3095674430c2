"""Conformance of the bus of a range's agent: directly, and behind the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from events.bus import BusRefused, LeaseLost, Outcome, Post, RecordWrite
from events.dead_letters import dead_letters
from events.envelope import Envelope
from events.gateway import GatewayBus
from events.lease import Bus, DeadLetterReason, Holder, Lease, SingleFlightLock
from events.memory.bus import MemoryBus
from events.messages import ImageReady, PullRequested, TransferProgress
from events.redis.bus import RedisBus
from events.streams import Streams
from tests.contract.bus.site import until
from tests.laboratory import RedisServer
from tests.unit.services.range_gateway.site import IMAGE_ID, RANGE, open_site

KINDS = ("memory", "redis", "gateway over memory", "gateway over redis")
LEASE_SECONDS = 0.3


@dataclass(frozen=True)
class Case:
    """`bus` is the agent's, `services` what the other side uses."""

    bus: Bus
    services: Bus
    streams: Streams

    @property
    def inbox(self) -> str:
        return self.streams.inbox(RANGE)

    @property
    def outbox(self) -> str:
        return self.streams.outbox(RANGE)

    async def ask(self, transfer_id: str) -> None:
        request = PullRequested(transfer_id=transfer_id, reference="web:1", image_id=IMAGE_ID)
        await self.services.publish(self.inbox, Envelope(message=request, source="deployer@h", subject="web:1"))

    async def take(self, owner: str, count: int = 10) -> list[Lease]:
        return list((await self.bus.take(holder(owner), [self.inbox], count)).leases)

    async def take_one(self, owner: str) -> Lease:
        (lease,) = await until(lambda: self.take(owner, 1))
        return lease

    async def recover(self, owner: str) -> list[Lease]:
        return list((await self.bus.recover(holder(owner), [self.inbox], 10, [])).leases)

    def answer(self, transfer_id: str = "t1") -> Post:
        ready = ImageReady(transfer_id=transfer_id, image_id=IMAGE_ID, how="pulled")
        envelope = Envelope(message=ready, source=f"agent@{RANGE}", subject="web:1").with_id(f"answer-{transfer_id}")
        return Post(self.outbox, envelope)

    async def answers(self) -> list[str]:
        found = self.services.tail([self.outbox], after="0", follow=False)
        messages = [entry.envelope.message async for entry in found if entry.envelope]
        return [message.transfer_id for message in messages if isinstance(message, ImageReady)]


def holder(owner: str) -> Holder:
    return Holder("agent", owner, LEASE_SECONDS)


@pytest.fixture(params=KINDS)
async def case(request: pytest.FixtureRequest, key_prefix: str, tmp_path: Path) -> AsyncIterator[Case]:
    async with AsyncExitStack() as stack:
        streams = Streams(key_prefix)
        services: Bus = MemoryBus()
        if request.param.endswith("redis"):
            server: RedisServer = request.getfixturevalue("redis_server")
            services = await stack.enter_async_context(RedisBus.open(server.url, streams=streams))
        bus = services
        if request.param.startswith("gateway"):
            site = await stack.enter_async_context(open_site(tmp_path, bus=services, streams=streams))
            bus = await stack.enter_async_context(GatewayBus.open(site.url(), streams=streams))
        yield Case(bus, services, streams)


async def test_an_answer_comes_with_the_acknowledgement(case: Case) -> None:
    """The outbox has the answer, the entry is nobody's any more."""
    await case.ask("t1")
    lease = await case.take_one("a")
    assert await case.bus.finish(lease, Outcome(posts=(case.answer(),)))
    assert await case.answers() == ["t1"]
    await asyncio.sleep(LEASE_SECONDS * 1.2)
    assert await case.recover("b") == []


async def test_finishing_twice_answers_once(case: Case) -> None:
    """A repeat whose first reply got lost has no second effect."""
    await case.ask("t1")
    lease = await case.take_one("a")
    await case.bus.finish(lease, Outcome(posts=(case.answer(),)))
    await case.bus.finish(lease, Outcome(posts=(case.answer(),)))
    assert await case.answers() == ["t1"]


async def test_a_replaced_worker_answers_nothing(case: Case) -> None:
    """Whoever was silent for a whole lease has lost the entry, and is told so."""
    await case.ask("t1")
    old = await case.take_one("a")
    (new,) = await until(lambda: case.recover("b"))
    with pytest.raises(LeaseLost):
        await case.bus.finish(old, Outcome(posts=(case.answer(),)))
    assert await case.bus.renew([(old, None), (new, None)]) == [old]
    assert await case.bus.finish(new, Outcome(posts=(case.answer(),)))
    assert await case.answers() == ["t1"]


async def test_an_entry_comes_with_everything_it_has(case: Case) -> None:
    """Names, values and counts are those of the entry, for decoding and for fencing."""
    await case.ask("t1")
    lease = await case.take_one("a")
    assert (lease.stream, lease.holder, lease.deliveries, lease.failed) == (case.inbox, holder("a"), 1, 0)
    assert lease.fields[b"type"] == b"image.pull_requested.v1"
    assert lease.fields[b"source"] == b"deployer@h"


async def test_what_is_put_aside_comes_back_counted(case: Case) -> None:
    """Not before its time, then with the failure counted."""
    await case.ask("t1")
    await case.bus.defer(await case.take_one("a"), 0.2, "failed")
    assert await case.take("a") == []
    assert (await case.take_one("a")).failed == 1


async def test_what_is_handed_back_comes_again_at_once(case: Case) -> None:
    """A stop costs the entry nothing."""
    await case.ask("t1")
    await case.bus.release([await case.take_one("a")])
    again = await case.take_one("b")
    assert (again.failed, again.crashed) == (0, 0)


async def test_one_transfer_of_a_content_at_a_time(case: Case) -> None:
    """The second waits until the first has ended, and comes then."""
    await case.ask("t1")
    await case.ask("t2")
    first, second = await case.take_one("a"), await case.take_one("a")
    lock = SingleFlightLock(case.inbox, IMAGE_ID)
    assert await case.bus.acquire(first, lock)
    assert not await case.bus.acquire(second, lock)
    await case.bus.finish(first.acquired(lock), Outcome(posts=(case.answer(),)))
    again = await case.take_one("a")
    assert again.entry_id == second.entry_id
    assert await case.bus.acquire(again, lock)


async def test_progress_travels_with_the_renewal(case: Case) -> None:
    """It is on the range's progress stream."""
    await case.ask("t1")
    lease = await case.take_one("a")
    message = TransferProgress(transfer_id="t1", reference="web:1", kind="pull", phase="downloading", range_id=RANGE)
    envelope = Envelope(message=message, source="agent@w", subject="web:1")
    post = Post(case.streams.range_progress(RANGE), envelope, keep=10_000)
    assert await case.bus.renew([(lease, post)]) == []
    found = case.services.tail([case.streams.range_progress(RANGE)], after="0", follow=False)
    assert [entry.envelope.message async for entry in found if entry.envelope] == [message]


async def test_a_dead_letter_says_why_and_what(case: Case) -> None:
    """On the range's own dead letters, with the entry's fields, and those who wait are told in the same step."""
    await case.ask("t1")
    lease = await case.take_one("a")
    letter = DeadLetterReason(case.streams.range_dead(RANGE), "crashed", "because", "2026-01-01T00:00:00.000000Z")
    assert await case.bus.dead_letter(lease, letter, Outcome(posts=(case.answer(),)))
    (found,) = await dead_letters(case.services, case.streams.range_dead(RANGE))
    assert (found.reason, found.message, found.entry_id) == ("crashed", "because", lease.entry_id)
    assert found.fields == lease.fields
    assert await case.answers() == ["t1"]


async def test_a_cancelled_transfer_is_remembered(case: Case) -> None:
    """The record is found by the next run of the agent."""
    keys = [case.streams.cancelled(RANGE, name) for name in ("t1", "t2")]
    assert await case.bus.load_many(keys) == [None, None]
    await case.bus.commit(Outcome(records=(RecordWrite(keys[1], b"1", expires_seconds=60.0),)))
    records = await case.bus.load_many(keys)
    assert [record is not None for record in records] == [False, True]


async def test_the_heart_beats(case: Case) -> None:
    """The services see it, and so does the agent."""
    key = case.streams.alive(RANGE)
    await case.bus.beat(key, b"well", 30.0)
    assert await case.services.beats([key]) == [b"well"]
    assert await case.bus.beats([key]) == [b"well"]


async def test_publishing_twice_adds_once(case: Case) -> None:
    """The same event, repeated because a reply got lost."""
    for _ in range(2):
        await case.bus.publish(case.outbox, case.answer().envelope)
    assert await case.answers() == ["t1"]


async def test_both_groups_get_every_entry(case: Case) -> None:
    """Transfers and cancelling are read apart."""
    await case.ask("t1")
    await case.take_one("a")
    other = Holder("agent-cancel", "c", LEASE_SECONDS)
    found = await until(lambda: _leases(case.bus, other, case.inbox))
    assert len(found) == 1


async def _leases(bus: Bus, who: Holder, stream: str) -> list[Lease]:
    return list((await bus.take(who, [stream], 5)).leases)


async def test_a_wait_ends_when_something_comes(case: Case) -> None:
    """At once, not at the end of its time."""
    assert await case.take("a") == []
    waiting = asyncio.create_task(case.bus.wait(holder("a"), [case.inbox], 60.0))
    await asyncio.sleep(0)
    await case.ask("t1")
    async with asyncio.timeout(10):
        await waiting
    assert (await case.take_one("a")).deliveries == 1


async def test_a_wait_ends_by_itself(case: Case) -> None:
    """After its time, without anything to take."""
    assert await case.take("a") == []
    async with asyncio.timeout(10):
        await case.bus.wait(holder("a"), [case.inbox], 0.05)


async def test_trimming_and_introducing_are_answered(case: Case) -> None:
    """What a worker does now and then works on the inbox."""
    await case.ask("t1")
    await case.bus.finish(await case.take_one("a"), Outcome())
    assert await case.bus.introduce(holder("a"), [case.inbox], 3600.0) == 0
    assert await case.bus.trim(case.inbox, 3600.0) == 0


async def test_an_entry_over_the_limit_is_refused(case: Case) -> None:
    """Whoever tries knows at once."""
    ready = ImageReady(transfer_id="t", image_id=IMAGE_ID, how="pulled")
    envelope = Envelope(message=ready, source=f"agent@{RANGE}", subject="x" * 2_000_000)
    with pytest.raises(BusRefused):
        await case.bus.publish(case.outbox, envelope)
