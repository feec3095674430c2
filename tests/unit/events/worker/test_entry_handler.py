"""Handling of one entry: committed, acknowledged, tried again, deferred, given up."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from events.bus import (
    BusRefused,
    BusUnavailable,
    Delivery,
    Outcome,
    Permanent,
    Post,
    RecordConflict,
    RecordWrite,
    Transient,
    Unavailable,
)
from events.envelope import Envelope
from events.messages import Failure, ImageDeleted, PushRequested
from tests.unit.events.worker.scene import EFFECTS, STREAMS, Scene, effect

pytestmark = pytest.mark.faked_time


async def test_what_a_handler_returns_is_committed() -> None:
    """Its posts appear and the entry is done."""
    scene = Scene()
    await scene.say("a")

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        return effect(delivery)

    async with scene.worker(handle):
        await scene.settled()
    assert await scene.effects() == ["a"]
    assert scene.counters.counts == {"handled": 1}


async def test_a_type_without_a_handler_is_acknowledged() -> None:
    """A stream carries more than one group cares for."""
    scene = Scene()
    deleted = ImageDeleted(reference="a:1", manifest_digest="sha256:" + "a" * 64)
    await scene.bus.publish(STREAMS.images, Envelope(message=deleted, source="test", subject="a"))

    async def handle(delivery: Delivery[PushRequested]) -> None:
        raise AssertionError("this handler is for another type")

    async with scene.worker(handle):
        await scene.settled()
    assert await scene.letters() == []


async def test_no_more_runs_than_slots() -> None:
    """And entries beyond them stay on the stream for other workers."""
    scene = Scene()
    for i in range(10):
        await scene.say(str(i))
    running, most, gate = 0, 0, asyncio.Event()

    async def handle(delivery: Delivery[PushRequested]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    async with scene.worker(handle, slots=3):
        await asyncio.sleep(1)
        (status,) = await scene.bus.groups([STREAMS.images])
        assert (status.pending, status.lag) == (3, 7)
        gate.set()
        await scene.settled()
    assert most == 3


async def test_a_permanent_error_is_a_dead_letter_at_once() -> None:
    """With what give_up says, in the same step."""
    scene = Scene()
    said = await scene.say("a")

    async def handle(delivery: Delivery[PushRequested]) -> None:
        raise Permanent("no such image", code="not_found")

    def give_up(delivery: Delivery[PushRequested], failure: Failure) -> Outcome:
        told = delivery.envelope.causes(PushRequested(reference=failure.code), source="w", subject="gave up")
        return Outcome(posts=(Post(EFFECTS, told),))

    async with scene.worker(handle, give_up=give_up):
        await scene.settled()
    (letter,) = await scene.letters()
    assert (letter.reason, letter.message, letter.failed, letter.envelope) == ("not_found", "no such image", 0, said)
    assert await scene.effects() == ["gave up"]


@pytest.mark.parametrize("error", [Transient("503"), ValueError("a mistake"), BusRefused("too large")])
async def test_other_errors_are_tried_again_a_counted_number_of_times(error: Exception) -> None:
    """With backoff in between; then the entry is a dead letter that says how often it was tried."""
    scene = Scene()
    await scene.say("a")
    attempts: list[tuple[int, float]] = []

    async def handle(delivery: Delivery[PushRequested]) -> None:
        attempts.append((delivery.attempt, asyncio.get_running_loop().time()))
        raise error

    async with scene.worker(handle, attempts=4, backoff_seconds=8.0):
        await scene.settled()
    assert [number for number, _ in attempts] == [1, 2, 3, 4]
    pauses = [later - earlier for (_, earlier), (_, later) in itertools.pairwise(attempts)]
    assert all(wait >= low for wait, low in zip(pauses, (4, 8, 16), strict=True))
    (letter,) = await scene.letters()
    assert letter.failed == 4


@pytest.mark.parametrize("error", [Unavailable("registry away"), BusUnavailable("Redis away")])
async def test_waiting_for_something_that_is_away_is_never_counted(error: Exception) -> None:
    """Many times more often than the attempts allow, and the entry is still handled."""
    scene = Scene()
    await scene.say("a")
    tries = 0

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        nonlocal tries
        tries += 1
        assert delivery.attempt == 1
        if tries <= 30:
            raise error
        return effect(delivery)

    async with scene.worker(handle, attempts=2):
        await scene.settled()
    assert await scene.effects() == ["a"]
    assert await scene.letters() == []
    assert scene.counters.counts["waited"] == 30


async def test_a_conflict_runs_the_handler_again_at_once() -> None:
    """It sees the record as it is now; nothing of the first run was committed."""
    scene = Scene()
    await scene.say("a")
    seen: list[int] = []

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        record = await scene.bus.load("r")
        revision = record.revision if record else 0
        seen.append(revision)
        if len(seen) == 1:
            await scene.bus.commit(Outcome(records=(RecordWrite("r", b"other", expected=0),)))
        return Outcome(posts=effect(delivery).posts, records=(RecordWrite("r", b"mine", expected=revision),))

    async with scene.worker(handle):
        await scene.settled()
    assert seen == [0, 1]
    assert await scene.effects() == ["a"]
    assert scene.counters.counts == {"conflicts": 1, "handled": 1}


async def test_a_conflict_without_end_is_put_aside() -> None:
    """The slot is free for others meanwhile, and the entry is neither lost nor counted as failed."""
    scene = Scene()
    await scene.say("a")
    runs = 0

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        nonlocal runs
        runs += 1
        if runs <= 40:
            raise RecordConflict("always changed")
        return effect(delivery)

    async with scene.worker(handle, attempts=2):
        await scene.settled()
    assert await scene.effects() == ["a"]


async def test_entries_of_one_key_run_one_after_the_other() -> None:
    """In one worker and across replicas; other keys run at the same time."""
    scene = Scene()
    for subject in ("x1", "x2", "x3", "y1"):
        await scene.say(subject)
    running: list[str] = []
    together: set[tuple[str, ...]] = set()

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        running.append(delivery.envelope.subject)
        together.add(tuple(sorted(running)))
        await asyncio.sleep(3)
        running.remove(delivery.envelope.subject)
        return effect(delivery)

    def key(delivery: Delivery[PushRequested]) -> str:
        return delivery.envelope.subject[0]

    started = asyncio.get_running_loop().time()
    async with scene.worker(handle, key=key), scene.worker(handle, key=key):
        await scene.settled()
        seconds = asyncio.get_running_loop().time() - started
    assert sorted(await scene.effects()) == ["x1", "x2", "x3", "y1"]
    assert all(sum(subject[0] == "x" for subject in one) <= 1 for one in together)
    assert ("x1", "y1") in together
    assert seconds < 9 + 1.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({b"data": b"{"}, "bad_data"),
        ({b"type": b"no.such"}, "unknown_type"),
        ({b"type": b"image.pushed.v7"}, "future_version"),
        ({b"data": b" " * 2_000_000}, "too_large"),
    ],
)
async def test_what_cannot_be_read_is_a_dead_letter_at_once(change: dict[bytes, bytes], reason: str) -> None:
    """With every byte, and the next entry is handled as if nothing had been."""
    scene = Scene()
    await scene.say("bad")
    stream = scene.bus._stream(STREAMS.images)  # what a stranger adds with redis-cli
    (entry_id,) = stream.entries
    stream.entries[entry_id] = {**stream.entries[entry_id], **change}
    await scene.say("good")

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        return effect(delivery)

    async with scene.worker(handle):
        await scene.settled()
    (letter,) = await scene.letters()
    assert letter.reason == reason
    assert letter.fields == stream.entries[entry_id]
    assert await scene.effects() == ["good"]
