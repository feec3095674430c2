"""Workload that runs under every fault, and the check of its result.

Five entries: two with one key, one whose handler fails at first, one that can never be done, one that takes longer
than a lease. One of them sets a timer for a sixth. Each handler loads its record first, and its outcome counts that
record up from the revision it loaded. Each entry must end exactly once: its effect committed and its record at one, or
in the dead letters. Effects carry fresh ids on purpose, so that a second commit would be seen as a second effect.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from events.bus import BusClient, BusError, Delivery, Outcome, Permanent, Post, RecordWrite, Transient
from events.dead_letters import dead_letters
from events.envelope import Envelope
from events.messages import Failure, PushRequested
from events.streams import Streams
from events.subscription import Handlers, Subscription

LEASE_SECONDS = 1.0
TIMEOUT_SECONDS = 0.8
SUBJECTS = ("paired-1", "paired-2", "flaky", "hopeless", "long")
#: What `paired-1` sets a timer for.
TIMED = "timed"
TIMER = timedelta(seconds=0.3)
#: How often a handler runs when nothing is wrong.
RUNS = {"flaky": 2}


@dataclass
class Journal:
    """Which handler began when, in one process."""

    began: list[tuple[str, float]] = field(default_factory=list)
    long_began: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, subject: str) -> None:
        self.began.append((subject, time.time()))
        if subject == "long":
            self.long_began.set()


def effects(streams: Streams) -> str:
    """Where the effects go: no stream of the services, so anything may be published there."""
    return f"{streams.prefix}:effects"


def record_key(streams: Streams, subject: str) -> str:
    return f"{streams.prefix}:record:{subject}"


def subscription(
    bus: BusClient, streams: Streams, begin: Callable[[str], None], *, long_seconds: float = 1.6 * LEASE_SECONDS
) -> Subscription:
    """The workload's handlers, which load through `bus`."""

    async def handle(delivery: Delivery[PushRequested]) -> Outcome:
        subject = delivery.envelope.subject
        begin(subject)
        if subject == "hopeless":
            raise Permanent("this can never be done")
        if subject == "flaky" and delivery.attempt == 1:
            raise Transient("not this time")
        key = record_key(streams, subject)
        record = await bus.load(key)
        await asyncio.sleep(long_seconds if subject == "long" else 0.02)
        effect = delivery.envelope.causes(PushRequested(reference=subject), source="s", subject=subject)
        posts = [Post(effects(streams), effect)]
        if subject == "paired-1":
            later = delivery.envelope.causes(PushRequested(reference=TIMED), source="s", subject=TIMED)
            posts.append(Post(streams.images, later, due=datetime.now(UTC) + TIMER))
        count = int(record.value) + 1 if record else 1
        write = RecordWrite(key, str(count).encode(), expected=record.revision if record else 0)
        return Outcome(posts=tuple(posts), records=(write,))

    def give_up(delivery: Delivery[PushRequested], failure: Failure) -> Outcome:
        message = PushRequested(reference=failure.code)
        end = delivery.envelope.causes(message, source="s", subject=f"gave up {delivery.envelope.subject}")
        return Outcome(posts=(Post(effects(streams), end),))

    return Subscription(
        group="faults",
        streams=lambda: [streams.images],
        handlers=Handlers().on(PushRequested, handle, key=_before_the_dash, give_up=give_up),
        slots=4,
        lease_seconds=LEASE_SECONDS,
        backoff_seconds=0.1,
        backoff_limit_seconds=1.0,
        unavailable_limit_seconds=0.5,
        dead_stream=streams.dead,
    )


def _before_the_dash(delivery: Delivery[PushRequested]) -> str:
    return delivery.envelope.subject.partition("-")[0]


def envelopes() -> list[Envelope]:
    return [Envelope(message=PushRequested(reference=name), source="faults", subject=name) for name in SUBJECTS]


async def insist(bus: BusClient, stream: str, entries: list[Envelope]) -> None:
    """Publish as a patient publisher does: again until it is known to be there; the ids absorb what was."""
    async with asyncio.timeout(60):
        while True:
            try:
                await bus.publish(stream, *entries)
                return
            except BusError:
                await asyncio.sleep(0.1)


@dataclass
class Outcomes:
    """The result of the workload."""

    lost: int
    duplicate_effects: int


async def settle(bus: BusClient, streams: Streams, *, seconds: float = 30.0) -> Outcomes:
    """Wait until every entry ended, at most so long; then say what is missing and what is there twice."""
    end = time.monotonic() + seconds
    while True:
        try:
            ends = await _ends(bus, streams)
        except BusError:
            ends = Counter()
        missing = len({*SUBJECTS, TIMED} - set(ends))
        if not missing or time.monotonic() > end:
            return Outcomes(missing, sum(ends.values()) - len(ends))
        await asyncio.sleep(0.1)


async def _ends(bus: BusClient, streams: Streams) -> Counter[str]:
    """How often each entry ended. A dead letter and what `give_up` said about it are one end, both or none."""
    ends: Counter[str] = Counter()
    given_up: Counter[str] = Counter()
    async for entry in bus.tail([effects(streams)], after="0", follow=False):
        subject = entry.envelope.subject if entry.envelope else "?"
        if subject.startswith("gave up "):
            given_up[subject.removeprefix("gave up ")] += 1
        else:
            ends[subject] += 1
    for letter in await dead_letters(bus, streams.dead):
        subject = letter.envelope.subject if letter.envelope else "?"
        ends[subject] += 1
        given_up[subject] -= 1
    for subject, difference in given_up.items():
        if difference:
            ends[f"{subject} torn"] += 2
    done = [subject for subject in (*SUBJECTS, TIMED) if subject in ends and subject != "hopeless"]
    records = await bus.load_many([record_key(streams, subject) for subject in done])
    for subject, record in zip(done, records, strict=True):
        if record is None or int(record.value) != ends[subject]:
            ends[f"{subject} and its record differ"] += 2
    return ends


def extra_runs(began: list[tuple[str, float]]) -> int:
    """Handler runs beyond those that the workload needs."""
    counts = Counter(subject for subject, _ in began)
    return sum(max(0, count - RUNS.get(subject, 1)) for subject, count in counts.items())


def line(**said: object) -> str:
    """One event of a child process, for its parent."""
    return json.dumps(said) + "\n"
