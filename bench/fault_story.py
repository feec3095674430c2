"""One small story that is told under every fault, and the verdict on it.

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

from events.bus import BusError, Delivery, Outcome, Permanent, Post, RecordWrite, Speaker, Subscription, Transient
from events.dead import dead_letters
from events.envelope import Envelope
from events.messages import Failure, PushRequested
from events.streams import Streams

LEASE_SECONDS = 1.0
TIMEOUT_SECONDS = 0.8
SUBJECTS = ("twin-1", "twin-2", "flaky", "hopeless", "long")
#: What `twin-1` sets a timer for.
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


def record_key(streams: Streams, subject: str) -> str:
    return f"{streams.prefix}:story:{subject}"


def subscription(
    bus: Speaker, streams: Streams, begin: Callable[[str], None], *, long_seconds: float = 1.6 * LEASE_SECONDS
) -> Subscription:
    """The story's handlers, which load through `bus`."""

    async def handle(delivery: Delivery) -> Outcome:
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
        posts = [Post(streams.deployments, effect)]
        if subject == "twin-1":
            later = delivery.envelope.causes(PushRequested(reference=TIMED), source="s", subject=TIMED)
            posts.append(Post(streams.images, later, due=datetime.now(UTC) + TIMER))
        count = int(record.value) + 1 if record else 1
        write = RecordWrite(key, str(count).encode(), expected=record.revision if record else 0)
        return Outcome(posts=tuple(posts), records=(write,))

    def give_up(envelope: Envelope, failure: Failure) -> Outcome:
        message = PushRequested(reference=failure.code)
        told = envelope.causes(message, source="s", subject=f"gave up {envelope.subject}")
        return Outcome(posts=(Post(streams.deployments, told),))

    return Subscription(
        group="story",
        streams=lambda: [streams.images],
        handlers={PushRequested: handle},
        key=lambda envelope: envelope.subject.partition("-")[0],
        give_up=give_up,
        slots=4,
        lease_seconds=LEASE_SECONDS,
        backoff_seconds=0.1,
        backoff_limit_seconds=1.0,
        unavailable_limit_seconds=0.5,
        dead_stream=streams.dead,
    )


def envelopes() -> list[Envelope]:
    return [Envelope(message=PushRequested(reference=name), source="story", subject=name) for name in SUBJECTS]


async def insist(bus: Speaker, stream: str, story: list[Envelope]) -> None:
    """Publish as a patient publisher does: again until it is known to be there; the ids absorb what was."""
    async with asyncio.timeout(60):
        while True:
            try:
                await bus.publish(stream, *story)
                return
            except BusError:
                await asyncio.sleep(0.1)


@dataclass
class Verdict:
    """What became of the story."""

    lost: int
    duplicate_effects: int


async def verdict(bus: Speaker, streams: Streams, *, seconds: float = 30.0) -> Verdict:
    """Wait until every entry ended, at most so long; then say what is missing and what is there twice."""
    end = time.monotonic() + seconds
    while True:
        try:
            ends = await _ends(bus, streams)
        except BusError:
            ends = Counter()
        missing = len({*SUBJECTS, TIMED} - set(ends))
        if not missing or time.monotonic() > end:
            return Verdict(missing, sum(ends.values()) - len(ends))
        await asyncio.sleep(0.1)


async def _ends(bus: Speaker, streams: Streams) -> Counter[str]:
    """How often each entry ended. A dead letter and what `give_up` said about it are one end, both or none."""
    ends: Counter[str] = Counter()
    told: Counter[str] = Counter()
    async for entry in bus.tail([streams.deployments], after="0", follow=False):
        subject = entry.envelope.subject if entry.envelope else "?"
        if subject.startswith("gave up "):
            told[subject.removeprefix("gave up ")] += 1
        else:
            ends[subject] += 1
    for letter in await dead_letters(bus, streams.dead):
        subject = letter.envelope.subject if letter.envelope else "?"
        ends[subject] += 1
        told[subject] -= 1
    for subject, difference in told.items():
        if difference:
            ends[f"{subject} torn"] += 2
    done = [subject for subject in (*SUBJECTS, TIMED) if subject in ends and subject != "hopeless"]
    records = await bus.load_many([record_key(streams, subject) for subject in done])
    for subject, record in zip(done, records, strict=True):
        if record is None or int(record.value) != ends[subject]:
            ends[f"{subject} and its record differ"] += 2
    return ends


def extra_runs(began: list[tuple[str, float]]) -> int:
    """Handler runs beyond those that the story needs."""
    counts = Counter(subject for subject, _ in began)
    return sum(max(0, count - RUNS.get(subject, 1)) for subject, count in counts.items())


def line(**said: object) -> str:
    """One event of a child process, for its parent."""
    return json.dumps(said) + "\n"
