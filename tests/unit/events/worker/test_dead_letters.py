"""Entries that are given up, also where `give_up`, the key or the letter itself cannot be had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from events.bus import (
    BusRefused,
    Delivery,
    HandlingError,
    Outcome,
    Permanent,
    Post,
    RecordWrite,
    Transient,
    Unavailable,
)
from events.lease import Counted, DeadLetterReason, Lease
from events.memory.bus import MemoryBus
from events.messages import Failure, PushRequested
from tests.unit.events.worker.scene import EFFECTS, STREAMS, Scene, effect

pytestmark = pytest.mark.faked_time


def _cannot(*_: object) -> Any:
    raise KeyError("no such thing")


def _says(text: str) -> Callable[..., Outcome]:
    """A `give_up` that tells the failure with this text after it."""

    def give_up(delivery: Delivery[PushRequested], failure: Failure) -> Outcome:
        told = delivery.envelope.causes(PushRequested(reference=failure.message + text), source="w", subject="gave up")
        return Outcome(posts=(Post(EFFECTS, told),))

    return give_up


@pytest.mark.parametrize("give_up", [_cannot, _says("\udcff"), _says("x" * 2_000_000)], ids=["raises", "text", "size"])
async def test_what_give_up_cannot_say_stops_no_dead_letter(give_up: Callable[..., Outcome]) -> None:
    """The entry is given up at once all the same, and its letter says that nobody was told."""
    scene = Scene()
    await scene.say("bad")
    await scene.say("good")
    runs: list[str] = []

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        runs.append(delivery.envelope.subject)
        if delivery.envelope.subject == "bad":
            raise Permanent("no such image", code="not_found")
        return effect(delivery)

    async with scene.worker(handle, give_up=give_up):
        await scene.settled()
    (letter,) = await scene.letters()
    assert letter.reason == "not_found"
    assert "no such image (those who wait could not be told: " in letter.message
    assert sorted(runs) == ["bad", "good"]
    assert await scene.effects() == ["good"]


@pytest.mark.parametrize("kind", [Transient, Unavailable, HandlingError])
async def test_an_error_that_stays_is_given_up_at_once_whatever_its_kind(kind: type[HandlingError]) -> None:
    """One run, though another error of that kind would be tried again."""
    scene = Scene()
    await scene.say("a")
    runs: list[int] = []

    async def handle(delivery: Delivery[PushRequested]) -> None:
        runs.append(delivery.attempt)
        error = kind("the layer is damaged", code="layer_damaged")
        error.final = True
        raise error

    async with scene.worker(handle):
        await scene.settled()
    (letter,) = await scene.letters()
    assert (letter.reason, letter.message, runs) == ("layer_damaged", "the layer is damaged", [1])


async def test_a_give_up_that_meets_a_conflict_says_it_again() -> None:
    """From the record as it is now; the outcome is not dropped for that."""
    scene = Scene()
    await scene.say("a")
    expected = iter([7, 0])

    async def handle(delivery: Delivery[PushRequested]) -> None:
        raise Permanent("no")

    def give_up(delivery: Delivery[PushRequested], failure: Failure) -> Outcome:
        return Outcome(records=(RecordWrite("r", b"gave up", expected=next(expected)),))

    async with scene.worker(handle, give_up=give_up):
        await scene.settled()
    record = await scene.bus.load("r")
    assert record is not None
    assert record.value == b"gave up"
    assert len(await scene.letters()) == 1


async def test_a_key_that_cannot_be_told_is_a_failure_of_the_entry() -> None:
    """Tried again with backoff, then a dead letter; the worker goes on."""
    scene = Scene()
    await scene.say("a")

    async def handle(delivery: Delivery[PushRequested]) -> None:
        raise AssertionError("not run without its key")

    async with scene.worker(handle, key=_cannot, attempts=3):
        await scene.settled()
    (letter,) = await scene.letters()
    assert (letter.reason, letter.failed) == ("unexpected", 3)


async def test_a_cancellation_that_nobody_asked_for_is_a_failure() -> None:
    """A handler lets one out that it made itself: counted like any other mistake, not run for ever."""
    scene = Scene()
    await scene.say("a")
    runs = 0

    async def handle(delivery: Delivery[PushRequested]) -> None:
        nonlocal runs
        runs += 1
        inner = asyncio.get_running_loop().create_future()
        inner.cancel()
        await inner

    async with scene.worker(handle, attempts=3):
        await scene.settled()
    (letter,) = await scene.letters()
    assert (runs, letter.failed) == (3, 3)
    assert "cancelled from within" in letter.message


class NoLetters(MemoryBus):
    """A bus that refuses every dead letter, and at first even to put aside."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals = 2

    async def dead_letter(self, lease: Lease, letter: DeadLetterReason, outcome: Outcome) -> bool:
        raise BusRefused("dead is no stream but a string")

    async def defer(self, lease: Lease, seconds: float, counted: Counted) -> None:
        if self.refusals:
            self.refusals -= 1
            raise BusRefused("no permission")
        await super().defer(lease, seconds, counted)


async def test_where_no_dead_letter_can_be_written_the_entry_waits() -> None:
    """With backoff: not lost, not run without a pause, and others are handled meanwhile."""
    scene = Scene()
    scene.bus = NoLetters()
    await scene.say("bad")
    await scene.say("good")
    bad: list[float] = []

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        if delivery.envelope.subject == "bad":
            bad.append(asyncio.get_running_loop().time())
            raise Permanent("no")
        return effect(delivery)

    async with scene.worker(handle):
        await asyncio.sleep(120)
    assert await scene.effects() == ["good"]
    assert 5 <= len(bad) <= 20
    (status,) = await scene.bus.groups([STREAMS.images])
    assert status.pending == 1
