"""What every bus promises, asked of the one in memory, of Redis' twin and of a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from deploy.lab import RedisServer
from events.bus import (
    NOTHING,
    BusRefused,
    IndexWrite,
    LeaseLost,
    Outcome,
    Post,
    Record,
    RecordConflict,
    RecordWrite,
)
from events.dead import dead_letters
from events.envelope import Envelope
from events.lease import Bus, Flight, Holder, Lease, Letter
from events.messages import PushRequested, TransferProgress
from events.streams import Streams
from events.task_group import TaskGroup
from tests.contract.buses import KINDS, open_bus

LEASE_SECONDS = 0.3


@dataclass(frozen=True)
class Case:
    """A bus, and the names that one test uses on it."""

    bus: Bus
    streams: Streams

    @property
    def images(self) -> str:
        return self.streams.images

    async def say(self, subject: str = "nginx", stream: str | None = None) -> Envelope:
        envelope = Envelope(message=PushRequested(reference=subject), source="test", subject=subject)
        await self.bus.publish(stream or self.images, envelope)
        return envelope

    async def take(self, owner: str, count: int = 10, group: str = "pusher") -> list[Lease]:
        return list((await self.bus.take(holder(owner, group), [self.images], count)).leases)

    async def take_one(self, owner: str, group: str = "pusher") -> Lease:
        (lease,) = await self.take(owner, 1, group)
        return lease

    async def recover(self, owner: str, *held: Lease, count: int = 10) -> list[Lease]:
        found = await self.bus.recover(holder(owner), [self.images], count, [lease.place for lease in held])
        return list(found.leases)

    async def entries(self, stream: str) -> list[str]:
        found = self.bus.tail([stream], after="0", follow=False)
        return [entry.envelope.subject if entry.envelope else "?" async for entry in found]

    def letter(self, code: str = "permanent") -> Letter:
        return Letter(self.streams.dead, code, "because", "2026-01-01T00:00:00.000000Z")


def holder(owner: str, group: str = "pusher") -> Holder:
    return Holder(group, owner, LEASE_SECONDS)


def say(subject: str) -> Envelope:
    return Envelope(message=PushRequested(reference=subject), source="test", subject=subject)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so, for at most ten seconds."""
    async with asyncio.timeout(10):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.01)


async def until(found: Callable[[], Awaitable[list[Lease]]]) -> list[Lease]:
    """Ask until there is something, for at most ten seconds."""
    async with asyncio.timeout(10):
        while True:
            leases = await found()
            if leases:
                return leases
            await asyncio.sleep(0.01)


@pytest.fixture(params=KINDS)
async def case(request: pytest.FixtureRequest, key_prefix: str) -> AsyncIterator[Case]:
    def url() -> str:
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url

    async with open_bus(request.param, url, key_prefix) as bus:
        yield Case(bus, Streams(key_prefix))


# ---- saying ----


async def test_publishing_twice_adds_once(case: Case) -> None:
    """The same source and id is one entry, however often it is published."""
    envelope = say("a")
    await case.bus.publish(case.images, envelope, envelope)
    await case.bus.publish(case.images, envelope)
    assert await case.entries(case.images) == ["a"]


async def test_entries_come_in_the_order_they_were_published(case: Case) -> None:
    """One call with many envelopes keeps their order."""
    await case.bus.publish(case.images, *(say(str(i)) for i in range(20)))
    assert await case.entries(case.images) == [str(i) for i in range(20)]


async def test_an_envelope_over_the_limit_is_refused(case: Case) -> None:
    """Nothing of it is added."""
    large = Envelope(message=PushRequested(reference="a"), source="test", subject="x" * 30_000)
    with pytest.raises(BusRefused, match="over"):
        await case.bus.publish(case.images, large)
    assert await case.entries(case.images) == []


async def test_a_commit_is_all_or_nothing(case: Case) -> None:
    """A record with another revision keeps the posts, the other records and the index from being written."""
    key, other, index = (f"{case.streams.prefix}:{name}" for name in ("record", "other", "index"))
    await case.bus.commit(Outcome(records=(RecordWrite(key, b"1", expected=0),)))
    with pytest.raises(RecordConflict):
        await case.bus.commit(
            Outcome(
                posts=(Post(case.images, say("a")),),
                records=(RecordWrite(other, b"x"), RecordWrite(key, b"2", expected=0)),
                index=(IndexWrite(index, "m", 1.0),),
            )
        )
    assert await case.bus.load_many([key, other]) == [Record(b"1", 1), None]
    assert await case.entries(case.images) == []
    assert await case.bus.members(index) == []


async def test_records_have_revisions(case: Case) -> None:
    """Each write raises the revision by one; deleting starts over."""
    key = f"{case.streams.prefix}:record"
    for value, expected in ((b"a", 0), (b"b", 1), (b"c", None)):
        await case.bus.commit(Outcome(records=(RecordWrite(key, value, expected=expected),)))
    assert await case.bus.load(key) == Record(b"c", 3)
    await case.bus.commit(Outcome(records=(RecordWrite(key, None, expected=3),)))
    assert await case.bus.load(key) is None
    await case.bus.commit(Outcome(records=(RecordWrite(key, b"d", expected=0),)))
    assert await case.bus.load(key) == Record(b"d", 1)


async def test_a_record_expires(case: Case) -> None:
    """After its time it is absent, for load and for the revision."""
    key = f"{case.streams.prefix}:record"
    await case.bus.commit(Outcome(records=(RecordWrite(key, b"a", expires_seconds=0.05),)))

    async def gone() -> bool:
        return await case.bus.load(key) is None

    await eventually(gone)
    await case.bus.commit(Outcome(records=(RecordWrite(key, b"b", expected=0),)))
    assert await case.bus.load(key) == Record(b"b", 1)


async def test_members_are_found_by_score(case: Case) -> None:
    """In order of score, within the bounds, and gone when taken out."""
    key = f"{case.streams.prefix}:index"
    writes = tuple(IndexWrite(key, member, score) for member, score in (("b", 2.0), ("a", 1.0), ("c", 3.5)))
    await case.bus.commit(Outcome(index=writes))
    await case.bus.commit(Outcome(index=(IndexWrite(key, "a", None),)))
    assert await case.bus.members(key) == ["b", "c"]
    assert await case.bus.members(key, high=2.0) == ["b"]
    assert await case.bus.members(key, low=2.5) == ["c"]


async def test_a_heart_stops_when_it_is_not_beaten(case: Case) -> None:
    """A beat lasts as long as it says."""
    keys = [case.streams.alive("1"), case.streams.alive("2"), case.streams.alive("3")]
    await case.bus.beat(keys[0], b"x", 60)
    await case.bus.beat(keys[1], b"y", 0.02)

    async def stopped() -> bool:
        return await case.bus.beats(keys) == [b"x", None, None]

    await eventually(stopped)


async def test_streams_are_discovered_by_pattern(case: Case) -> None:
    """Streams that match, and no other keys."""
    for range_id in ("2", "1"):
        await case.say("a", case.streams.outbox(range_id))
        await case.say("a", case.streams.inbox(range_id))
        await case.bus.beat(f"{case.streams.prefix}:range:9:outbox", b"", 60)
    assert await case.bus.discover(case.streams.outbox_pattern) == [case.streams.outbox("1"), case.streams.outbox("2")]


async def test_tail_follows_what_comes(case: Case) -> None:
    """Behind the newest entry, then each as it is added."""
    await case.say("old")
    seen: list[str] = []
    started = asyncio.Event()

    async def follow() -> None:
        entries = case.bus.tail([case.images], after="0")
        async for entry in entries:
            assert entry.envelope is not None
            seen.append(entry.envelope.subject)
            started.set()
            if len(seen) == 3:
                break

    async with asyncio.timeout(10), TaskGroup() as tasks:
        tasks.create_task(follow())
        await started.wait()
        await case.say("new")
        await case.say("newer")
    assert seen == ["old", "new", "newer"]


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


# ---- leasing ----


async def test_take_gives_no_more_than_asked_over_all_streams(case: Case) -> None:
    """Entries beyond the free slots stay for other workers."""
    streams = [case.streams.outbox(str(i)) for i in range(3)]
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


async def test_finish_commits_and_acknowledges(case: Case) -> None:
    """The outcome is there, the entry never comes again."""
    await case.say("a")
    lease = await case.take_one("w")
    key = f"{case.streams.prefix}:record"
    outcome = Outcome(posts=(Post(case.streams.deployments, say("out")),), records=(RecordWrite(key, b"1"),))
    assert await case.bus.finish(lease, outcome) is True
    assert await case.entries(case.streams.deployments) == ["out"]
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
        await case.bus.finish(old, Outcome(posts=(Post(case.streams.deployments, say("old")),)))
    with pytest.raises(LeaseLost):
        await case.bus.defer(old, 0.1, "failed")
    with pytest.raises(LeaseLost):
        await case.bus.bury(old, case.letter(), NOTHING)
    await case.bus.release([old])
    assert await case.bus.renew([(old, None), (new, None)]) == [old]
    await case.bus.finish(new, Outcome(posts=(Post(case.streams.deployments, say("new")),)))
    assert await case.entries(case.streams.deployments) == ["new"]
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
    assert (found.phantoms, found.takeovers, found.leases[0].crashed) == (1, 0, 0)


async def test_recovery_reaches_the_tail_of_a_long_list(case: Case) -> None:
    """The scan carries its cursor, so many well-held entries do not hide an abandoned one behind them."""
    await case.bus.publish(case.images, *(say(str(i)) for i in range(251)))
    held = await case.take("busy", 250)
    await case.take_one("gone")
    async with asyncio.timeout(10):
        while True:
            assert await case.bus.renew([(lease, None) for lease in held]) == []
            found = await case.recover("rescuer")
            if found:
                break
    assert [lease.fields[b"subject"] for lease in found] == [b"250"]


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
    flight, other = Flight(case.images, "k"), Flight(case.images, "other")
    assert await case.bus.board(first, flight)
    assert not await case.bus.board(second, flight)
    assert await case.bus.board(third, other)
    assert await case.take("x") == []
    await case.bus.finish(first.boarded(flight), NOTHING)
    (woken,) = await case.take("x")
    assert woken.entry_id == second.entry_id
    assert await case.bus.board(woken, flight)


async def test_boarding_may_be_repeated(case: Case) -> None:
    """The holder of a flight asks again and still holds it."""
    await case.say("a")
    lease = await case.take_one("w")
    flight = Flight(case.images, "k")
    assert await case.bus.board(lease, flight)
    assert await case.bus.board(lease, flight)


async def test_a_flight_that_was_forgotten_is_taken_again_or_the_lease_is_lost(case: Case) -> None:
    """A failover may lose the lock: a renewal takes it back, unless another entry of the key flies by now."""
    await case.say("a")
    await case.say("b")
    first, second = await case.take("w")
    flight, other = Flight(case.images, "k"), Flight(case.images, "other")
    assert await case.bus.renew([(first.boarded(flight), None)]) == []
    assert await case.bus.board(second, other)
    assert await case.bus.renew([(first.boarded(other), None)]) == [first.boarded(other)]
    assert await case.bus.renew([(first.boarded(flight), None)]) == []
    assert not await case.bus.board(second, flight)


async def test_a_vanished_holder_blocks_its_key_no_longer_than_its_lease(case: Case) -> None:
    """Whoever takes its entry over may board, and the next of the key follows."""
    await case.say("a")
    await case.say("b")
    first, second = await case.take("gone")
    flight = Flight(case.images, "k")
    assert await case.bus.board(first, flight)
    assert not await case.bus.board(second, flight)
    (again,) = [lease for lease in await until(lambda: case.recover("w")) if lease.entry_id == first.entry_id]
    assert await case.bus.board(again, flight)
    await case.bus.finish(again.boarded(flight), NOTHING)
    (woken,) = await until(lambda: case.take("w"))
    assert await case.bus.board(woken, flight)


async def test_a_flight_is_one_for_all_streams_of_a_group(case: Case) -> None:
    """Entries on different streams with one key exclude each other, in one group and not across groups."""
    await case.say("a")
    await case.say("b", case.streams.deployments)
    streams = [case.images, case.streams.deployments]
    flight = Flight(case.images, "k")
    one, two = (await case.bus.take(holder("w"), streams, 10)).leases
    assert await case.bus.board(one, flight)
    assert not await case.bus.board(two, flight)
    foreign = await case.take_one("w", "tracker")
    assert await case.bus.board(foreign, flight)


async def test_entries_are_found_on_any_of_many_streams(case: Case) -> None:
    """A listener of a hundred streams hears new entries, timers and what was put aside, on whichever they are."""
    streams = [case.streams.outbox(str(number)) for number in range(100)]
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
    streams = [case.streams.outbox(str(number)) for number in range(20)]
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
    await case.bus.bury(lease, case.letter(), NOTHING)
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
    await case.bus.bury(await case.take_one("w"), case.letter(), NOTHING)
    await case.bus.finish(await case.take_one("w", "tracker"), NOTHING)
    (letter,) = await dead_letters(case.bus, case.streams.dead)
    assert await case.bus.redrive(case.streams.dead, letter.letter_id)
    taken = await case.bus.take(holder("w", "tracker"), [case.images], 10)
    assert (list(taken.leases), taken.absorbed) == ([], 1)


async def test_a_conflict_leaves_the_lease(case: Case) -> None:
    """Nothing was committed and the same lease may finish with another outcome."""
    await case.say("a")
    lease = await case.take_one("w")
    key = f"{case.streams.prefix}:record"
    with pytest.raises(RecordConflict):
        await case.bus.finish(lease, Outcome(records=(RecordWrite(key, b"1", expected=7),)))
    assert await case.bus.finish(lease, Outcome(records=(RecordWrite(key, b"1", expected=0),))) is True


# ---- dead letters, trimming, status ----


async def test_a_dead_letter_keeps_every_byte(case: Case) -> None:
    """Reason, origin, counts and the raw fields; the give-up outcome is committed with it."""
    said = await case.say("a")
    lease = await case.take_one("w")
    outcome = Outcome(posts=(Post(case.streams.deployments, say("told")),))
    assert await case.bus.bury(lease, case.letter("not_found"), outcome) is True
    assert await case.bus.bury(lease, case.letter("not_found"), outcome) is True
    (letter,) = await dead_letters(case.bus, case.streams.dead)
    assert (letter.reason, letter.message, letter.stream) == ("not_found", "because", case.images)
    assert (letter.group, letter.entry_id, letter.fields) == ("pusher", lease.entry_id, dict(lease.fields))
    assert letter.envelope == said
    assert await case.entries(case.streams.deployments) == ["told"]
    assert await case.take("w") == []


async def test_a_redriven_letter_is_handled_again_once(case: Case) -> None:
    """It leaves the dead letters and its group gets the entry; a second redrive finds nothing."""
    await case.say("a")
    await case.bus.bury(await case.take_one("w"), case.letter(), NOTHING)
    (letter,) = await dead_letters(case.bus, case.streams.dead)
    assert await case.bus.redrive(case.streams.dead, letter.letter_id) is True
    assert await case.bus.redrive(case.streams.dead, letter.letter_id) is False
    assert await dead_letters(case.bus, case.streams.dead) == []
    again = await case.take_one("w")
    assert again.fields == letter.fields
    assert await case.bus.finish(again, NOTHING) is True


async def test_a_letter_that_cannot_go_back_stays(case: Case) -> None:
    """An entry of thousands of fields, which no reader would take: it is told, and the letter is not lost."""
    await case.say("a")
    lease = await case.take_one("w")
    many = {b"field %d" % number: b"" for number in range(4200)}
    await case.bus.bury(replace(lease, fields={**lease.fields, **many}), case.letter(), NOTHING)
    (letter,) = await dead_letters(case.bus, case.streams.dead)
    with pytest.raises(BusRefused, match="has 4207 fields, over 1000"):
        await case.bus.redrive(case.streams.dead, letter.letter_id)
    assert await dead_letters(case.bus, case.streams.dead) == [letter]


async def test_a_dropped_letter_is_gone(case: Case) -> None:
    """And says so the second time."""
    await case.say("a")
    await case.bus.bury(await case.take_one("w"), case.letter(), NOTHING)
    (letter,) = await dead_letters(case.bus, case.streams.dead)
    assert await case.bus.drop(case.streams.dead, letter.letter_id) is True
    assert await case.bus.drop(case.streams.dead, letter.letter_id) is False


async def test_trimming_keeps_what_any_group_has_not_acknowledged(case: Case) -> None:
    """Neither pending nor undelivered nor set-aside entries go, and without a group none does."""
    await case.bus.publish(case.images, *(say(str(i)) for i in range(6)))
    assert await case.bus.trim(case.images, 0.0) == 0
    leases = await case.take("w", 4)
    for lease in (leases[0], leases[1], leases[3]):
        await case.bus.finish(lease, NOTHING)
    await asyncio.sleep(0.002)  # entries are older than "now" only then
    first = await case.take_one("t", "tracker")
    assert await case.bus.trim(case.images, 0.0) == 0
    for lease in [first, *await case.take("t", 10, "tracker")]:
        await case.bus.finish(lease, NOTHING)
    assert await case.bus.trim(case.images, 60.0) == 0
    assert await case.bus.trim(case.images, 0.0) == 2
    assert await case.entries(case.images) == ["2", "3", "4", "5"]
    await case.bus.defer(leases[2], 0.001, "failed")
    found: list[bytes] = []
    while b"2" not in found:
        found += [lease.fields[b"subject"] for lease in await until(lambda: case.take("w", 1))]
    assert sorted(found) in ([b"2"], [b"2", b"4"], [b"2", b"4", b"5"])


async def test_groups_say_how_they_stand(case: Case) -> None:
    """Lag, pending, set aside, ages, and per entry its owner, deliveries and progress."""
    await case.bus.publish(case.images, *(say(str(i)) for i in range(3)))
    first, second = await case.take("w", 2)
    await case.bus.defer(second, 60, "waited")
    progress = TransferProgress(transfer_id="t", reference="r", kind="push", phase="sending", done_bytes=5)
    news = Post(case.streams.progress, Envelope(message=progress, source="w", subject="r"), keep=100)
    assert await case.bus.renew([(first, news)]) == []
    (status,) = await case.bus.groups([case.images, case.streams.deployments])
    assert (status.group, status.pending, status.deferred) == ("pusher", 2, 1)
    assert status.lag in (1, None)
    assert [entry.owner for entry in status.entries] == ["w", None]
    assert status.entries[0].progress is not None
    assert b'"done_bytes":5' in status.entries[0].progress
    assert 0 <= status.oldest_undelivered_seconds < 60
    assert await case.entries(case.streams.progress) == ["r"]


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
