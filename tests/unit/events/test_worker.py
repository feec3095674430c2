"""`events.worker` on the bus in memory, in faked time: what a handler may do, and what then happens."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from events.bus import (
    BusAway,
    BusRefused,
    Delivery,
    Handler,
    Outcome,
    Permanent,
    Post,
    RecordConflict,
    RecordWrite,
    Subscription,
    Transient,
    Unavailable,
)
from events.dead import DeadLetter, dead_letters
from events.envelope import Envelope
from events.lease import Counted, Holder, Lease, Letter, Recovered, Taken
from events.memory import MemoryBus
from events.messages import Failure, ImageFailed, PushRequested, TransferProgress
from events.observer import Counter
from events.streams import Streams
from events.worker import Worker

pytestmark = pytest.mark.looptime

STREAMS = Streams("test")


class Tally:
    """Counts, as an observer does."""

    def __init__(self) -> None:
        self.counts: dict[Counter, int] = {}

    def count(self, group: str, counter: Counter, amount: int = 1) -> None:
        self.counts[counter] = self.counts.get(counter, 0) + amount

    def took(self, group: str, seconds: float) -> None:
        assert seconds >= 0


class Scene:
    """A bus, what is said on it, and the workers of one test."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.tally = Tally()

    async def say(self, subject: str = "a", stream: str | None = None) -> Envelope:
        envelope = Envelope(message=PushRequested(reference=subject), source="test", subject=subject)
        await self.bus.publish(stream or STREAMS.images, envelope)
        return envelope

    @asynccontextmanager
    async def worker(self, handler: Handler, **changes: Any) -> AsyncIterator[Worker]:
        """A worker that runs within the block and is drained after it."""
        options: dict[str, Any] = {
            "group": "pusher",
            "streams": lambda: [STREAMS.images],
            "handlers": {PushRequested: handler},
            "dead_stream": STREAMS.dead,
            "lease_seconds": 10.0,
            **changes,
        }
        worker = Worker(self.bus, Subscription(**options), name="w", observer=self.tally)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
            await worker.drain(60)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def effects(self) -> list[str]:
        entries = self.bus.tail([STREAMS.deployments], after="0", follow=False)
        return [entry.envelope.subject async for entry in entries if entry.envelope]

    async def letters(self) -> list[DeadLetter]:
        return await dead_letters(self.bus, STREAMS.dead)

    async def settled(self) -> None:
        """Until nothing is pending, at most an hour of the loop's time."""
        async with asyncio.timeout(3600):
            while True:
                statuses = await self.bus.groups([STREAMS.images])
                if statuses and all(status.pending + (status.lag or 0) == 0 for status in statuses):
                    return
                await asyncio.sleep(0.05)


def effect(delivery: Delivery) -> Outcome:
    told = delivery.envelope.causes(delivery.message, source="w", subject=delivery.envelope.subject)
    return Outcome(posts=(Post(STREAMS.deployments, told),))


async def test_what_a_handler_returns_is_committed() -> None:
    """Its posts appear and the entry is done."""
    scene = Scene()
    await scene.say("a")

    async def handle(delivery: Delivery) -> Outcome:
        return effect(delivery)

    async with scene.worker(handle):
        await scene.settled()
    assert await scene.effects() == ["a"]
    assert scene.tally.counts == {"handled": 1}


async def test_a_type_without_a_handler_is_acknowledged() -> None:
    """A stream carries more than one group cares for."""
    scene = Scene()
    failed = ImageFailed(transfer_id="t", error=Failure(code="c", message="m"))
    await scene.bus.publish(STREAMS.images, Envelope(message=failed, source="test", subject="a"))

    async def handle(delivery: Delivery) -> None:
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

    async def handle(delivery: Delivery) -> None:
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

    async def handle(delivery: Delivery) -> None:
        raise Permanent("no such image", code="not_found")

    def give_up(envelope: Envelope, failure: Failure) -> Outcome:
        told = envelope.causes(PushRequested(reference=failure.code), source="w", subject="gave up")
        return Outcome(posts=(Post(STREAMS.deployments, told),))

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

    async def handle(delivery: Delivery) -> None:
        attempts.append((delivery.attempt, asyncio.get_running_loop().time()))
        raise error

    async with scene.worker(handle, attempts=4, backoff_seconds=8.0):
        await scene.settled()
    assert [number for number, _ in attempts] == [1, 2, 3, 4]
    pauses = [later - earlier for (_, earlier), (_, later) in itertools.pairwise(attempts)]
    assert all(wait >= low for wait, low in zip(pauses, (4, 8, 16), strict=True))
    (letter,) = await scene.letters()
    assert letter.failed == 4


@pytest.mark.parametrize("error", [Unavailable("registry away"), BusAway("Redis away")])
async def test_waiting_for_something_that_is_away_is_never_counted(error: Exception) -> None:
    """Many times more often than the attempts allow, and the entry is still handled."""
    scene = Scene()
    await scene.say("a")
    tries = 0

    async def handle(delivery: Delivery) -> Outcome:
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
    assert scene.tally.counts["waited"] == 30


async def test_a_conflict_runs_the_handler_again_at_once() -> None:
    """It sees the record as it is now; nothing of the first run was committed."""
    scene = Scene()
    await scene.say("a")
    seen: list[int] = []

    async def handle(delivery: Delivery) -> Outcome:
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
    assert scene.tally.counts == {"conflicts": 1, "handled": 1}


async def test_a_conflict_without_end_is_put_aside() -> None:
    """The slot is free for others meanwhile, and the entry is neither lost nor counted as failed."""
    scene = Scene()
    await scene.say("a")
    runs = 0

    async def handle(delivery: Delivery) -> Outcome:
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

    async def handle(delivery: Delivery) -> Outcome:
        running.append(delivery.envelope.subject)
        together.add(tuple(sorted(running)))
        await asyncio.sleep(3)
        running.remove(delivery.envelope.subject)
        return effect(delivery)

    def key(envelope: Envelope) -> str:
        return envelope.subject[0]

    started = asyncio.get_running_loop().time()
    async with scene.worker(handle, key=key), scene.worker(handle, key=key):
        await scene.settled()
        seconds = asyncio.get_running_loop().time() - started
    assert sorted(await scene.effects()) == ["x1", "x2", "x3", "y1"]
    assert all(sum(subject[0] == "x" for subject in one) <= 1 for one in together)
    assert ("x1", "y1") in together
    assert seconds < 9 + 1.5


async def test_a_lost_lease_cancels_the_handler() -> None:
    """Another worker has the entry; what the first would have said is never said."""
    scene = Scene()
    await scene.say("a")
    cancelled = asyncio.Event()

    async def handle(delivery: Delivery) -> Outcome:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return effect(delivery)

    async with scene.worker(handle):
        await asyncio.sleep(1)
        scene.bus._stream(STREAMS.images).group("pusher").leases.clear()  # so that the thief's own length counts
        (lease,) = (await scene.bus.recover(Holder("pusher", "thief", 0.0), [STREAMS.images], 1, [])).leases
        async with asyncio.timeout(5):
            await cancelled.wait()
        await scene.bus.finish(lease, Outcome())
    assert await scene.effects() == []
    assert scene.tally.counts["lost_leases"] == 1


class Mute(MemoryBus):
    """A bus whose renewals do not come through."""

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        raise BusAway("nobody answers")


async def test_a_handler_ends_before_its_unconfirmed_lease_does() -> None:
    """No renewal for most of a lease: it is cancelled while nobody else can have the entry yet."""
    scene = Scene()
    scene.bus = Mute()
    await scene.say("a")
    loop = asyncio.get_running_loop()
    spans: list[float] = []

    async def handle(delivery: Delivery) -> None:
        started = loop.time()
        try:
            await asyncio.sleep(100)
        finally:
            spans.append(loop.time() - started)

    async with scene.worker(handle):
        async with asyncio.timeout(30):
            while not spans:  # noqa: ASYNC110  the clock is faked: this is the waiting
                await asyncio.sleep(0.1)
    assert 5.0 < spans[0] < 10.0


class Hanging(MemoryBus):
    """A bus whose renewals fail at once, and later hang."""

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        if self._now() - self.began > 6.5:
            await asyncio.sleep(1000)
        raise BusAway("nobody answers")

    began = 0.0


async def test_a_renewal_that_hangs_does_not_delay_the_end() -> None:
    """Failing at once and then hanging is as long unconfirmed: three quarters of a lease, and no more."""
    scene = Scene()
    scene.bus = bus = Hanging()
    loop = asyncio.get_running_loop()
    cancelled = asyncio.Event()
    await scene.say("a")

    async def handle(delivery: Delivery) -> None:
        bus.began = loop.time()
        try:
            await asyncio.sleep(100)
        finally:
            cancelled.set()

    async with scene.worker(handle):
        await cancelled.wait()
        assert 7.0 < loop.time() - bus.began < 8.1


async def test_a_long_handler_keeps_its_lease_and_tells_its_progress() -> None:
    """Many leases long, one run; the latest progress goes to the progress stream and into the group's status."""
    scene = Scene()
    await scene.say("a")
    runs = 0

    async def handle(delivery: Delivery) -> Outcome:
        nonlocal runs
        runs += 1
        for done in range(50):
            delivery.report(
                TransferProgress(transfer_id="t", reference="a", kind="push", phase="sending", done_bytes=done)
            )
            await asyncio.sleep(2)
        return effect(delivery)

    async with scene.worker(handle, progress_stream=STREAMS.progress), scene.worker(handle):
        await asyncio.sleep(30)
        (status,) = await scene.bus.groups([STREAMS.images])
        assert status.entries[0].progress is not None
        await scene.settled()
    assert (runs, await scene.effects()) == (1, ["a"])
    told = [entry async for entry in scene.bus.tail([STREAMS.progress], after="0", follow=False)]
    assert len(told) > 20
    last = told[-1].envelope
    assert last is not None
    assert isinstance(last.message, TransferProgress)
    assert last.message.done_bytes == 49


async def test_progress_is_told_once_a_second_however_long_the_lease() -> None:
    """Not with the lease's renewals, which are rarer, nor with each report, of which there are many more."""
    scene = Scene()
    await scene.say("a")

    async def handle(delivery: Delivery) -> None:
        for done in range(200):
            delivery.report(
                TransferProgress(transfer_id="t", reference="a", kind="push", phase="sending", done_bytes=done)
            )
            await asyncio.sleep(0.1)

    async with scene.worker(handle, lease_seconds=300.0, progress_stream=STREAMS.progress):
        await scene.settled()
    told = [entry async for entry in scene.bus.tail([STREAMS.progress], after="0", follow=False)]
    assert 18 <= len(told) <= 22


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

    async def handle(delivery: Delivery) -> None:
        raise AssertionError("not run any more")

    async with scene.worker(handle, crashes=3):
        await scene.settled()
    (letter,) = await scene.letters()
    assert (letter.reason, letter.crashed, letter.failed) == ("crashed", 3, 0)


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

    async def handle(delivery: Delivery) -> Outcome:
        return effect(delivery)

    async with scene.worker(handle):
        await scene.settled()
    (letter,) = await scene.letters()
    assert letter.reason == reason
    assert letter.fields == stream.entries[entry_id]
    assert await scene.effects() == ["good"]


async def test_drain_lets_finish_what_can_and_hands_back_the_rest() -> None:
    """Within the grace; the rest is another worker's at once, not counted as anything."""
    scene = Scene()
    await scene.say("short")
    await scene.say("long")
    loop = asyncio.get_running_loop()

    async def handle(delivery: Delivery) -> Outcome:
        await asyncio.sleep(2 if delivery.envelope.subject == "short" else 1000)
        return effect(delivery)

    async def quick(delivery: Delivery) -> Outcome:
        assert delivery.attempt == 1
        return effect(delivery)

    async with scene.worker(handle) as worker:
        await asyncio.sleep(1)
        await scene.say("later")
        await asyncio.sleep(1)
        started = loop.time()
        await worker.drain(5)
        assert loop.time() - started < 6
        assert await scene.effects() == ["short"]
        started = loop.time()
        async with scene.worker(quick):
            await scene.settled()
            assert loop.time() - started < 1
    assert sorted(await scene.effects()) == ["later", "long", "short"]
    assert scene.tally.counts["handed_back"] >= 1


async def test_a_second_drain_hands_back_everything_now() -> None:
    """A second SIGTERM does not wait for the first one's grace."""
    scene = Scene()
    await scene.say("a")

    async def handle(delivery: Delivery) -> None:
        await asyncio.sleep(1000)

    async with scene.worker(handle) as worker:
        await asyncio.sleep(1)
        started = asyncio.get_running_loop().time()
        first = asyncio.create_task(worker.drain(500))
        await asyncio.sleep(1)
        await worker.drain(0)
        await first
        assert asyncio.get_running_loop().time() - started < 3
    taken = await scene.bus.take(Holder("pusher", "x", 10), [STREAMS.images], 1)
    assert [(lease.failed, lease.crashed) for lease in taken.leases] == [(0, 0)]


async def test_a_cancelled_worker_hands_back_too() -> None:
    """Cancelling run is a drain without grace."""
    scene = Scene()
    await scene.say("a")

    async def handle(delivery: Delivery) -> None:
        await asyncio.sleep(1000)

    subscription = Subscription(
        group="pusher",
        streams=lambda: [STREAMS.images],
        handlers={PushRequested: handle},
        dead_stream=STREAMS.dead,
    )
    running = asyncio.create_task(Worker(scene.bus, subscription).run())
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len((await scene.bus.take(Holder("pusher", "x", 10), [STREAMS.images], 1)).leases) == 1


async def test_a_growing_list_of_streams_is_followed() -> None:
    """A stream that appears later is read, and a busy one does not starve it."""
    scene = Scene()
    streams = [STREAMS.outbox("1")]
    for i in range(50):
        await scene.say(f"busy {i}", STREAMS.outbox("1"))
    order: list[str] = []

    async def handle(delivery: Delivery) -> None:
        order.append(delivery.envelope.subject)
        await asyncio.sleep(1)

    async with scene.worker(handle, streams=lambda: streams, slots=1):
        await asyncio.sleep(5)
        streams.append(STREAMS.outbox("2"))
        await scene.say("new", STREAMS.outbox("2"))
        await asyncio.sleep(5)
        assert "new" in order
        await asyncio.sleep(60)
    assert len(order) == 51


async def test_a_timer_fires_while_all_slots_are_taken() -> None:
    """Another group may be waiting for it."""
    scene = Scene()
    await scene.say("busy")
    gate = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        await gate.wait()

    async with scene.worker(handle, slots=1):
        await asyncio.sleep(1)
        envelope = Envelope(message=PushRequested(reference="later"), source="test", subject="later")
        await scene.bus.commit(Outcome(posts=(Post(STREAMS.images, envelope, due=envelope.time),)))
        await asyncio.sleep(5)
        entries = scene.bus.tail([STREAMS.images], after="0", follow=False)
        assert [entry.envelope.subject async for entry in entries if entry.envelope] == ["busy", "later"]
        gate.set()


def _cannot(*_: object) -> Any:
    raise KeyError("no such thing")


def _says(text: str) -> Callable[..., Outcome]:
    """A `give_up` that tells the failure with this text after it."""

    def give_up(envelope: Envelope, failure: Failure) -> Outcome:
        told = envelope.causes(PushRequested(reference=failure.message + text), source="w", subject="gave up")
        return Outcome(posts=(Post(STREAMS.deployments, told),))

    return give_up


@pytest.mark.parametrize("give_up", [_cannot, _says("\udcff"), _says("x" * 2_000_000)], ids=["raises", "text", "size"])
async def test_what_give_up_cannot_say_stops_no_dead_letter(give_up: Callable[..., Outcome]) -> None:
    """The entry is given up at once all the same, and its letter says that nobody was told."""
    scene = Scene()
    await scene.say("bad")
    await scene.say("good")
    runs: list[str] = []

    async def handle(delivery: Delivery) -> Outcome:
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


async def test_a_give_up_that_meets_a_conflict_says_it_again() -> None:
    """From the record as it is now; the outcome is not dropped for that."""
    scene = Scene()
    await scene.say("a")
    expected = iter([7, 0])

    async def handle(delivery: Delivery) -> None:
        raise Permanent("no")

    def give_up(envelope: Envelope, failure: Failure) -> Outcome:
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

    async def handle(delivery: Delivery) -> None:
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

    async def handle(delivery: Delivery) -> None:
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

    async def bury(self, lease: Lease, letter: Letter, outcome: Outcome) -> bool:
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

    async def handle(delivery: Delivery) -> Outcome:
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


@pytest.mark.parametrize("note", ["\udcff", "x" * 2_000_000], ids=["text", "size"])
async def test_a_note_that_cannot_be_told_costs_nothing_but_itself(note: str) -> None:
    """Neither the lease nor the outcome; what is reported after it is told."""
    scene = Scene()
    await scene.say("a")

    async def handle(delivery: Delivery) -> Outcome:
        for said in (note, "fine", note):
            delivery.report(TransferProgress(transfer_id="t", reference="a", kind="push", phase="sending", note=said))
            await asyncio.sleep(15)
        return effect(delivery)

    async with scene.worker(handle, progress_stream=STREAMS.progress):
        await scene.settled()
    assert await scene.effects() == ["a"]
    assert scene.tally.counts == {"handled": 1}
    told = [entry.envelope async for entry in scene.bus.tail([STREAMS.progress], after="0", follow=False)]
    assert [one.message.note for one in told if one and isinstance(one.message, TransferProgress)] == ["fine"]


class Choosy(MemoryBus):
    """A bus that takes no progress, and whose first answer to a renewal gets lost."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__()
        self.refuses = refuses
        self.lost = 0

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        if any(news for _, news in renewals):
            if self.refuses:
                raise BusRefused("progress is no stream but a string")
            if not self.lost:
                self.lost += 1
                raise BusAway("nobody answers")
        return await super().renew(renewals)


@pytest.mark.parametrize("refuses", [True, False])
async def test_progress_and_leases_do_not_cost_each_other(*, refuses: bool) -> None:
    """A lease is renewed where its note is refused; a note is told again where its renewal failed."""
    scene = Scene()
    scene.bus = Choosy(refuses=refuses)
    await scene.say("a")

    async def handle(delivery: Delivery) -> Outcome:
        delivery.report(TransferProgress(transfer_id="t", reference="a", kind="push", phase="sending"))
        await asyncio.sleep(30)
        told = [entry async for entry in scene.bus.tail([STREAMS.progress], after="0", follow=False)]
        assert len(told) == (0 if refuses else 1)
        return effect(delivery)

    async with scene.worker(handle, progress_stream=STREAMS.progress):
        await scene.settled()
    assert await scene.effects() == ["a"]
    assert scene.tally.counts == {"handled": 1}


async def test_an_entry_that_a_failover_hands_out_again_goes_on() -> None:
    """The replica did not know of the delivery: the worker that holds the entry gets it again, and runs it once."""
    scene = Scene()
    await scene.say("a")
    runs = 0

    async def handle(delivery: Delivery) -> Outcome:
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
    assert scene.tally.counts == {"handled": 1}


async def test_an_entry_that_comes_back_under_another_lease_ends_its_former_run() -> None:
    """No run is left that nobody renews and nobody can end."""
    scene = Scene()
    await scene.say("a")
    ended: list[str] = []

    async def handle(delivery: Delivery) -> Outcome:
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
        scene.bus._put_aside(Lease(STREAMS.images, entry_id, Holder("pusher", "x"), 1, {}), group.pending[entry_id], 0)
        ended_by = asyncio.get_running_loop().time() + 0.5
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
            raise BusAway("nobody answers")
        return await super().take(holder, streams, count)

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        if self.away:
            raise BusAway("nobody answers")
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
            raise BusAway("nobody answers")
        return await super().recover(holder, streams, count, held, blameless=blameless)


async def test_outages_use_up_no_crashes() -> None:
    """A job that was under way each time Redis went away for longer than a lease is healthy: it is handled at last."""
    scene = Scene()
    scene.bus = bus = Outage()
    await scene.say("a")
    gone = Holder("pusher", "gone", 10.0)

    async def handle(delivery: Delivery) -> Outcome:
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
    assert scene.tally.counts["takeovers"] == 1
