"""Conformance of the bus: dead letters, trimming, status of groups."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from events.bus import (
    NOTHING,
    BusRefused,
    Outcome,
    Post,
)
from events.dead_letters import dead_letters
from events.envelope import Envelope
from events.messages import TransferProgress
from tests.contract.bus.site import Case, say, until


async def test_a_dead_letter_keeps_every_byte(case: Case) -> None:
    """Reason, origin, counts and the raw fields; the give-up outcome is committed with it."""
    said = await case.say("a")
    lease = await case.take_one("w")
    outcome = Outcome(posts=(Post(case.effects, say("told")),))
    assert await case.bus.dead_letter(lease, case.letter("not_found"), outcome) is True
    assert await case.bus.dead_letter(lease, case.letter("not_found"), outcome) is True
    (letter,) = await dead_letters(case.bus, case.streams.dead)
    assert (letter.reason, letter.message, letter.stream) == ("not_found", "because", case.images)
    assert (letter.group, letter.entry_id, letter.fields) == ("pusher", lease.entry_id, dict(lease.fields))
    assert letter.envelope == said
    assert await case.entries(case.effects) == ["told"]
    assert await case.take("w") == []


async def test_a_redriven_letter_is_handled_again_once(case: Case) -> None:
    """It leaves the dead letters and its group gets the entry; a second redrive finds nothing."""
    await case.say("a")
    await case.bus.dead_letter(await case.take_one("w"), case.letter(), NOTHING)
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
    await case.bus.dead_letter(replace(lease, fields={**lease.fields, **many}), case.letter(), NOTHING)
    (letter,) = await dead_letters(case.bus, case.streams.dead)
    with pytest.raises(BusRefused, match="has 4207 fields, over 1000"):
        await case.bus.redrive(case.streams.dead, letter.letter_id)
    assert await dead_letters(case.bus, case.streams.dead) == [letter]


async def test_a_dropped_letter_is_gone(case: Case) -> None:
    """And says so the second time."""
    await case.say("a")
    await case.bus.dead_letter(await case.take_one("w"), case.letter(), NOTHING)
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
    (status,) = await case.bus.groups([case.images, case.effects])
    assert (status.group, status.pending, status.deferred) == ("pusher", 2, 1)
    assert status.lag in (1, None)
    assert [entry.owner for entry in status.entries] == ["w", None]
    assert status.entries[0].progress is not None
    assert b'"done_bytes":5' in status.entries[0].progress
    assert 0 <= status.oldest_undelivered_seconds < 60
    assert await case.entries(case.streams.progress) == ["r"]


@pytest.mark.parametrize("case", ["memory", "redis"], indirect=True)
async def test_a_stream_weighs_what_it_holds(case: Case) -> None:
    """A stream that is not there weighs nothing; one with entries at least what they hold."""
    assert await case.bus.weights([case.images]) == [0]
    await case.say("nginx" * 100)
    (weight,) = await case.bus.weights([case.images])
    assert weight >= 500


async def test_streams_are_as_long_as_their_entries_are_many(case: Case) -> None:
    """Of many at once, in the order asked for; one that does not exist is empty."""
    await case.say("a")
    await case.say("b")
    assert await case.bus.lengths([case.streams.dead, case.images]) == [0, 2]
    assert await case.bus.lengths([]) == []
