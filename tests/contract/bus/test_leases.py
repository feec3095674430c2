"""Conformance of the bus: leases are taken, fenced, renewed and recovered."""

from __future__ import annotations

import asyncio

import pytest

from events.bus import (
    NOTHING,
    LeaseLost,
    Outcome,
    Post,
    Record,
    RecordConflict,
    RecordWrite,
)
from events.dead_letters import dead_letters
from events.lease import Holder, Lease
from tests.contract.bus.site import LEASE_SECONDS, Case, holder, say, until


async def test_finish_commits_and_acknowledges(case: Case) -> None:
    """The outcome is there, the entry never comes again."""
    await case.say("a")
    lease = await case.take_one("w")
    key = f"{case.streams.prefix}:record"
    outcome = Outcome(posts=(Post(case.effects, say("out")),), records=(RecordWrite(key, b"1"),))
    assert await case.bus.finish(lease, outcome) is True
    assert await case.entries(case.effects) == ["out"]
    assert await case.bus.load(key) == Record(b"1", 1)
    assert await case.take("w") == []
    assert await case.recover("w") == []


async def test_finish_may_be_repeated(case: Case) -> None:
    """A worker whose reply got lost asks again: same answer, no second effect."""
    await case.say("a")
    lease = await case.take_one("w")
    key = f"{case.streams.prefix}:record"
    for _ in range(2):
        assert await case.bus.finish(lease, Outcome(records=(RecordWrite(key, b"1"),))) is True
    assert await case.bus.load(key) == Record(b"1", 1)


async def test_a_replaced_worker_finishes_nothing(case: Case) -> None:
    """Its outcome is refused as a whole, its renewal says so, and the new holder's counts."""
    await case.say("a")
    old = await case.take_one("old")
    (new,) = await until(lambda: case.recover("new"))
    assert (new.crashed, new.failed) == (1, 0)
    with pytest.raises(LeaseLost):
        await case.bus.finish(old, Outcome(posts=(Post(case.effects, say("old")),)))
    with pytest.raises(LeaseLost):
        await case.bus.defer(old, 0.1, "failed")
    with pytest.raises(LeaseLost):
        await case.bus.dead_letter(old, case.letter(), NOTHING)
    await case.bus.release([old])
    assert await case.bus.renew([(old, None), (new, None)]) == [old]
    await case.bus.finish(new, Outcome(posts=(Post(case.effects, say("new")),)))
    assert await case.entries(case.effects) == ["new"]
    assert await dead_letters(case.bus, case.streams.dead) == []


async def test_the_same_worker_taking_its_entry_again_fences_its_former_run(case: Case) -> None:
    """The delivery count is part of the lease, so a run that was lost and found by one process is still two."""
    await case.say("a")
    first = await case.take_one("w")
    (second,) = await case.recover("w")
    with pytest.raises(LeaseLost):
        await case.bus.finish(first, NOTHING)
    assert await case.bus.finish(second, NOTHING) is True


async def test_a_renewed_lease_is_not_taken_over(case: Case) -> None:
    """However long the work takes."""
    await case.say("a")
    lease = await case.take_one("w")
    loop = asyncio.get_running_loop()
    end = loop.time() + 3 * LEASE_SECONDS
    while loop.time() < end:
        assert await case.bus.renew([(lease, None)]) == []
        assert await case.recover("thief") == []
        await asyncio.sleep(LEASE_SECONDS / 10)
    assert await case.bus.finish(lease, NOTHING) is True


async def test_an_outage_is_nobodys_crash(case: Case) -> None:
    """A lease that ran out while nobody could renew is taken over without blame."""
    await case.say("a")
    await case.take_one("old")

    async def found() -> list[Lease]:
        reply = await case.bus.recover(holder("new"), [case.images], 10, [], blameless=True)
        assert reply.takeovers == len(reply.leases)
        return list(reply.leases)

    (lease,) = await until(found)
    assert (lease.crashed, lease.failed, lease.waited) == (0, 0, 0)


async def test_a_lease_is_as_long_as_its_holder_says(case: Case) -> None:
    """Not as long as the leases of whoever finds the entry; and the groups' status tells what is left of it."""
    await case.say("a")
    await case.say("b")
    long = Holder("pusher", "long", 60.0)
    (held,) = (await case.bus.take(long, [case.images], 1)).leases
    await case.bus.introduce(long, [case.images], 60)
    short = await case.take_one("short")
    (found,) = await until(lambda: case.recover("finder"))
    assert found.entry_id == short.entry_id
    assert await case.bus.finish(held, NOTHING) is True
    await case.say("c")
    await case.bus.take(long, [case.images], 1)
    (status,) = await case.bus.groups([case.images])
    left = {entry.owner: entry.lease_left_seconds for entry in status.entries}
    assert left["finder"] is None
    assert 50 < (left["long"] or 0) <= 60


async def test_entries_whose_hand_over_got_lost_are_swept_at_once(case: Case) -> None:
    """What is pending for a worker that does not know of it comes back, not counted as a crash; the known do not."""
    await case.say("a")
    await case.say("b")
    known, _unknown = await case.take("w")
    found = await case.bus.recover(holder("w"), [case.images], 10, [known.place])
    assert [lease.fields[b"subject"] for lease in found.leases] == [b"b"]
    assert (found.orphaned, found.takeovers, found.leases[0].crashed) == (1, 0, 0)


async def test_recovery_reaches_the_tail_of_a_long_list(case: Case) -> None:
    """The scan carries its cursor, so many well-held entries do not hide an abandoned one behind them."""
    await case.bus.publish(case.images, *(say(str(i)) for i in range(251)))
    seconds = 2.0  # to renew so many takes a while, and nothing may end meanwhile
    held = (await case.bus.take(Holder("pusher", "busy", seconds), [case.images], 250)).leases
    await case.bus.take(Holder("pusher", "gone", seconds), [case.images], 1)
    async with asyncio.timeout(10 * seconds):
        while True:
            assert await case.bus.renew([(lease, None) for lease in held]) == []
            found = (await case.bus.recover(Holder("pusher", "rescuer", seconds), [case.images], 10, [])).leases
            if found:
                break
    assert [lease.fields[b"subject"] for lease in found] == [b"250"]


async def test_a_conflict_leaves_the_lease(case: Case) -> None:
    """Nothing was committed and the same lease may finish with another outcome."""
    await case.say("a")
    lease = await case.take_one("w")
    key = f"{case.streams.prefix}:record"
    with pytest.raises(RecordConflict):
        await case.bus.finish(lease, Outcome(records=(RecordWrite(key, b"1", expected=7),)))
    assert await case.bus.finish(lease, Outcome(records=(RecordWrite(key, b"1", expected=0),))) is True
