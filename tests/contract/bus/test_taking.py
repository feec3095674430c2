"""Conformance of the bus: which entries are taken, from which streams, and when."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

from events.bus import (
    NOTHING,
    Outcome,
    Post,
    Record,
    RecordWrite,
)
from events.dead_letters import dead_letters
from events.task_group import TaskGroup
from tests.contract.bus.site import Case, eventually, holder, say, until


async def test_a_timer_becomes_an_entry_when_it_is_due(case: Case) -> None:
    """Not before, and once."""
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    post = Post(case.images, say("later"), due=soon)
    await case.bus.commit(Outcome(posts=(post,)))
    await case.bus.commit(Outcome(posts=(post,)))
    if datetime.now(UTC) < soon:
        assert await case.take("a") == [] or datetime.now(UTC) >= soon
    leases = await until(lambda: case.take("a"))
    assert datetime.now(UTC) >= soon - timedelta(milliseconds=2)
    assert len(leases) == 1
    assert await case.entries(case.images) == ["later"]


async def test_a_range_that_floods_its_outbox_gets_a_quarter_of_a_take(case: Case) -> None:
    """What another range says, and what services say, is taken beside it."""
    evil, honest = case.streams.outbox("evil"), case.streams.outbox("honest")
    for number in range(50):
        await case.say(str(number), evil)
    await case.say("one", honest)
    await case.say("two")
    taken = await case.bus.take(holder("a"), [evil, honest, case.images], 8)
    assert Counter(lease.stream for lease in taken.leases) == {evil: 2, honest: 1, case.images: 1}
    for lease in taken.leases:
        if lease.stream == evil:
            await case.bus.defer(lease, 0.0, "")
    again = await case.bus.take(holder("a"), [evil], 8)
    assert 0 < len(again.leases) <= 4  # of those put aside at most two, and at most two new ones


async def test_take_gives_no_more_than_asked_over_all_streams(case: Case) -> None:
    """Entries beyond the free slots stay for other workers."""
    streams = [f"{case.images}:{i}" for i in range(3)]
    for stream in streams:
        for i in range(3):
            await case.say(str(i), stream)
    first = await case.bus.take(holder("a"), streams, 4)
    second = await case.bus.take(holder("b"), streams, 10)
    assert (len(first.leases), len(second.leases)) == (4, 5)


async def test_each_group_gets_every_entry(case: Case) -> None:
    """Groups do not take from one another."""
    await case.say("a")
    assert len(await case.take("x", group="pusher")) == 1
    assert len(await case.take("x", group="tracker")) == 1


async def test_entries_are_found_on_any_of_many_streams(case: Case) -> None:
    """A listener of a hundred streams hears new entries, timers and what was put aside, on whichever they are."""
    streams = [f"{case.images}:{number}" for number in range(100)]
    worker, found = holder("w"), list[str]()
    await case.say("first", streams[0])
    await case.say("last", streams[-1])
    envelope, due = say("timer"), datetime.now(UTC) + timedelta(seconds=0.2)
    await case.bus.commit(Outcome(posts=(Post(streams[50], envelope, due),)))

    async def heard(count: int) -> bool:
        for lease in (await case.bus.take(worker, streams, 4)).leases:
            found.append(lease.fields[b"subject"].decode())
            if found.count("last") == 1 and lease.stream == streams[-1]:
                await case.bus.defer(lease, 0.1, "waited")
            else:
                await case.bus.finish(lease, NOTHING)
        if len(found) < count:
            await case.bus.wait(worker, streams, 0.05)
        return len(found) == count

    await eventually(lambda: heard(4))
    assert sorted(found) == ["first", "last", "last", "timer"]
    await case.say("later", streams[70])
    await eventually(lambda: heard(5))
    assert found[-1] == "later"


async def test_a_long_stream_leaves_room_for_many_others(case: Case) -> None:
    """Of many streams with news each is heard within a few takes, whatever lies on the first."""
    streams = [f"{case.images}:{number}" for number in range(20)]
    for number in range(20):
        await case.say(str(number), streams[0])
    await case.say("other", streams[-1])
    worker, subjects = holder("w"), list[str]()

    async def heard() -> bool:
        taken = await case.bus.take(worker, streams, 30)
        subjects.extend(lease.fields[b"subject"].decode() for lease in taken.leases)
        return "other" in subjects

    await eventually(heard)
    assert len(subjects) == len(set(subjects))


async def test_the_second_entry_of_an_event_has_no_effect(case: Case) -> None:
    """An event that came twice (a replay after a failover) is handled once, even where both were under way."""
    envelope = say("a")
    await case.bus.publish(case.images, envelope)
    lease = await case.take_one("w")
    await case.bus.dead_letter(lease, case.letter(), NOTHING)
    letters = await dead_letters(case.bus, case.streams.dead)
    assert await case.bus.redrive(case.streams.dead, letters[0].letter_id)
    first = await case.take_one("w")
    assert await case.bus.finish(first, NOTHING) is True
    assert await case.entries(case.images) == ["a", "a"]
    other = holder("late", "tracker")
    both = (await case.bus.take(other, [case.images], 10)).leases
    key = f"{case.streams.prefix}:record"
    effects = [await case.bus.finish(lease, Outcome(records=(RecordWrite(key, b"x"),))) for lease in both]
    assert effects == [True, False]
    assert await case.bus.load(key) == Record(b"x", 1)


async def test_an_entry_whose_event_is_done_is_absorbed(case: Case) -> None:
    """It is acknowledged without being given to anybody."""
    envelope = say("a")
    await case.bus.publish(case.images, envelope)
    await case.bus.dead_letter(await case.take_one("w"), case.letter(), NOTHING)
    await case.bus.finish(await case.take_one("w", "tracker"), NOTHING)
    (letter,) = await dead_letters(case.bus, case.streams.dead)
    assert await case.bus.redrive(case.streams.dead, letter.letter_id)
    taken = await case.bus.take(holder("w", "tracker"), [case.images], 10)
    assert (list(taken.leases), taken.absorbed) == ([], 1)


async def test_wait_returns_when_something_comes(case: Case) -> None:
    """Well before its time is over, and having taken nothing."""
    await case.take("w")

    async def wait() -> None:
        await case.bus.wait(holder("w"), [case.images], 1.5)

    async with asyncio.timeout(10), TaskGroup() as tasks:
        waiting = tasks.create_task(wait())
        await asyncio.sleep(0)
        await case.say("a")
        await waiting
    assert len(await case.take("w")) == 1
