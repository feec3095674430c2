"""Conformance of the bus: deferred entries, and the single-flight lock."""

from __future__ import annotations

import asyncio

from events.bus import (
    NOTHING,
)
from events.lease import Lease, SingleFlightLock
from tests.contract.bus.site import LEASE_SECONDS, Case, holder, until


async def test_what_is_put_aside_is_nobodys_before_it_is_due(case: Case) -> None:
    """A backoff longer than the lease holds: no take and no recovery gets the entry before."""
    await case.say("a")
    lease = await case.take_one("w")
    loop = asyncio.get_running_loop()
    started = loop.time()
    wait = 3 * LEASE_SECONDS
    await case.bus.defer(lease, wait, "failed")
    found: list[Lease] = []
    async with asyncio.timeout(10):
        while not found:
            found = [*await case.take("x"), *await case.recover("y")]
            await asyncio.sleep(0.01)
    assert loop.time() - started >= wait - 0.005
    assert (found[0].failed, found[0].crashed, found[0].waited) == (1, 0, 0)


async def test_a_take_tells_when_the_next_deferred_entry_is_due(case: Case) -> None:
    """So a worker that has nothing to do need not look again before."""
    assert (await case.bus.take(holder("w"), [case.images], 1)).due_seconds is None
    for subject in ("late", "soon"):
        await case.say(subject)
    late, soon = await case.take("w")
    await case.bus.defer(late, 900.0, "failed")
    await case.bus.defer(soon, 60.0, "waited")
    due = (await case.bus.take(holder("w"), [case.images], 1)).due_seconds
    assert due is not None
    assert 50.0 < due <= 60.0


async def test_waiting_and_failing_are_counted_apart(case: Case) -> None:
    """So that an outage never uses up an entry's attempts."""
    await case.say("a")
    lease = await case.take_one("w")
    for counted in ("waited", "failed", "waited", ""):
        await case.bus.defer(lease, 0.001, counted)
        (lease,) = await until(lambda: case.take("w"))
    assert (lease.failed, lease.crashed, lease.waited) == (1, 0, 2)


async def test_what_is_handed_back_is_there_at_once_and_not_counted(case: Case) -> None:
    """Another worker takes it without waiting for any lease."""
    await case.say("a")
    await case.say("b")
    leases = await case.take("w")
    await case.bus.release(leases)
    again = await case.take("x")
    assert sorted(lease.fields[b"subject"] for lease in again) == [b"a", b"b"]
    assert all((lease.failed, lease.crashed, lease.waited) == (0, 0, 0) for lease in again)


async def test_one_of_a_key_at_a_time(case: Case) -> None:
    """The second of a key is put aside until the first has landed, then due at once; another key flies meanwhile."""
    for subject in ("a", "b", "c"):
        await case.say(subject)
    first, second, third = await case.take("w")
    single_flight, other = SingleFlightLock(case.images, "k"), SingleFlightLock(case.images, "other")
    assert await case.bus.acquire(first, single_flight)
    assert not await case.bus.acquire(second, single_flight)
    assert await case.bus.acquire(third, other)
    assert await case.take("x") == []
    await case.bus.finish(first.acquired(single_flight), NOTHING)
    (woken,) = await case.take("x")
    assert woken.entry_id == second.entry_id
    assert await case.bus.acquire(woken, single_flight)


async def test_boarding_may_be_repeated(case: Case) -> None:
    """The holder of a flight asks again and still holds it."""
    await case.say("a")
    lease = await case.take_one("w")
    single_flight = SingleFlightLock(case.images, "k")
    assert await case.bus.acquire(lease, single_flight)
    assert await case.bus.acquire(lease, single_flight)


async def test_a_flight_that_was_forgotten_is_taken_again_or_the_lease_is_lost(case: Case) -> None:
    """A failover may lose the lock: a renewal takes it back, unless another entry of the key flies by now."""
    await case.say("a")
    await case.say("b")
    first, second = await case.take("w")
    single_flight, other = SingleFlightLock(case.images, "k"), SingleFlightLock(case.images, "other")
    assert await case.bus.renew([(first.acquired(single_flight), None)]) == []
    assert await case.bus.acquire(second, other)
    assert await case.bus.renew([(first.acquired(other), None)]) == [first.acquired(other)]
    assert await case.bus.renew([(first.acquired(single_flight), None)]) == []
    assert not await case.bus.acquire(second, single_flight)


async def test_a_vanished_holder_blocks_its_key_no_longer_than_its_lease(case: Case) -> None:
    """Whoever takes its entry over may board, and the next of the key follows."""
    await case.say("a")
    await case.say("b")
    first, second = await case.take("gone")
    single_flight = SingleFlightLock(case.images, "k")
    assert await case.bus.acquire(first, single_flight)
    assert not await case.bus.acquire(second, single_flight)
    (again,) = [lease for lease in await until(lambda: case.recover("w")) if lease.entry_id == first.entry_id]
    assert await case.bus.acquire(again, single_flight)
    await case.bus.finish(again.acquired(single_flight), NOTHING)
    (woken,) = await until(lambda: case.take("w"))
    assert await case.bus.acquire(woken, single_flight)


async def test_a_flight_is_one_for_all_streams_of_a_group(case: Case) -> None:
    """Entries on different streams with one key exclude each other, in one group and not across groups."""
    await case.say("a")
    await case.say("b", case.effects)
    streams = [case.images, case.effects]
    single_flight = SingleFlightLock(case.images, "k")
    one, two = (await case.bus.take(holder("w"), streams, 10)).leases
    assert await case.bus.acquire(one, single_flight)
    assert not await case.bus.acquire(two, single_flight)
    foreign = await case.take_one("w", "tracker")
    assert await case.bus.acquire(foreign, single_flight)
