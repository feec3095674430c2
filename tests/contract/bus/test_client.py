"""Conformance of the bus's client half: publishing, records, and reading outside a group."""

from __future__ import annotations

import asyncio

import pytest

from events.bus import (
    BusRefused,
    IndexWrite,
    Outcome,
    Post,
    Record,
    RecordConflict,
    RecordWrite,
)
from events.envelope import Envelope
from events.messages import PushRequested
from events.task_group import TaskGroup
from tests.contract.bus.site import Case, eventually, say


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


async def test_revisions_of_many_records_come_without_their_values(case: Case) -> None:
    """In the order of the keys; 0 where there is no record, or a key of another kind."""
    first, second, index = (f"{case.streams.prefix}:{name}" for name in ("first", "second", "index"))
    for _ in range(2):
        await case.bus.commit(Outcome(records=(RecordWrite(second, b"x"),), index=(IndexWrite(index, "m", 1.0),)))
    await case.bus.commit(Outcome(records=(RecordWrite(first, b"y"),)))
    assert await case.bus.revisions([first, second, f"{first}-none", index]) == [1, 2, 0, 0]
    assert await case.bus.revisions([]) == []


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
