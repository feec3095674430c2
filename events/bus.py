"""How things are said and heard: the bus as a port, and the words a handler needs.

A **handler** gets a `Delivery` and returns an `Outcome`: the messages to publish and the records to write. The worker
(`events.worker`) holds a lease on the entry while the handler runs, and the bus commits the outcome **atomically with
the acknowledgement**, only if the lease is still held. So a handler may run twice, but its outcome takes effect once.

A handler that cannot do its work raises one of three kinds of error:

    Permanent       no retry can help (schema, not found, refused)      → dead letter now
    Transient       another try may help (5xx, timeout)                 → backoff with jitter, counted
    Unavailable     what we stand on is away (Redis, engine, registry)  → backoff, never counted

Anything else that escapes a handler counts as Transient, except what the bus itself raised: `BusAway` is Unavailable,
`RecordConflict` runs the handler again at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from events.envelope import Envelope
from events.messages import Failure, Message, TransferProgress


class HandlingError(Exception):
    """Why a handler gave up. `code` is stable, the text is for a person."""

    code = "handling_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class Permanent(HandlingError):
    """No retry can help: the entry goes to the dead letters at once."""

    code = "permanent"


class Transient(HandlingError):
    """Another try may help: backoff with jitter; after `Subscription.attempts` the entry goes to the dead letters."""

    code = "transient"


class Unavailable(HandlingError):
    """Redis, an engine or the registry is away: tried again for as long as it takes, never counted."""

    code = "unavailable"


class BusError(Exception):
    """The bus itself could not do something."""


class BusAway(BusError):
    """Redis cannot be reached, is starting, failing over or out of memory; what was asked may have taken effect."""


class BusDenied(BusAway):
    """Redis does not take our user or password: it stays away until somebody corrects one side."""


class BusRefused(BusError):
    """What was asked cannot be done as it is: too large, not permitted, a key of another kind. Nothing took effect."""


class LeaseLost(BusError):
    """Another worker has the entry now; nothing of this run was committed."""


class RecordConflict(BusError):
    """A record had another revision than the outcome expected; nothing was committed, the entry is run again."""


@dataclass(frozen=True, slots=True)
class Post:
    """One envelope to add to `stream`; with `due`, not before that moment (a timer, kept in Redis).

    `keep` is for lossy streams alone: about how many entries the stream holds, and the id is not remembered.
    """

    stream: str
    envelope: Envelope
    due: datetime | None = None
    keep: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A stored value and its revision (1 for the first)."""

    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """Set `key` to `value` (None deletes) if its revision is still `expected` (0: absent, None: do not care)."""

    key: str
    value: bytes | None
    expected: int | None = None
    expires_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class IndexWrite:
    """Put `member` into the sorted set `key` under `score`, or take it out (None)."""

    key: str
    member: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a handled entry leads to, committed in one step with its acknowledgement."""

    posts: tuple[Post, ...] = ()
    records: tuple[RecordWrite, ...] = ()
    index: tuple[IndexWrite, ...] = ()


NOTHING = Outcome()


def _ignore_progress(progress: TransferProgress) -> None:
    """Progress that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One entry in a handler's hands. `attempt` is 1 the first time; crashes of a worker count apart.

    `report` remembers the latest progress, which travels with the next lease renewal.
    """

    envelope: Envelope
    stream: str
    entry_id: str
    attempt: int = 1
    report: Callable[[TransferProgress], None] = _ignore_progress

    @property
    def message(self) -> Message:
        return self.envelope.message


Handler = Callable[[Delivery], Awaitable[Outcome | None]]
#: The table of a role: which handler for which message. Types not in the table are acknowledged unread.
Handlers = Mapping[type[Any], Handler]
#: What else is committed when an entry goes to the dead letters: whoever waits for it must hear of it.
GiveUp = Callable[[Envelope, Failure], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What one worker listens to, as which group, and how.

    `streams` is asked again now and then, so that a list that grows (one outbox per range) is followed.
    `key` makes handling single-flight: of all entries with one key, in all replicas of the group, one runs at a time.
    `attempts` bounds counted failures, `crashes` how often a worker may vanish with the entry; waiting for something
    that is away is never counted, and backs off up to `unavailable_limit_seconds`. `give_up` says what to tell those
    who wait when an entry goes to the dead letters; committed together with that. Entries that every group of a stream
    has acknowledged are dropped once they are older than `keep_seconds`.
    """

    group: str
    streams: Callable[[], Iterable[str]]
    handlers: Handlers
    key: Callable[[Envelope], str | None] = lambda envelope: None
    give_up: GiveUp = lambda envelope, failure: NOTHING
    slots: int = 8
    lease_seconds: float = 30.0
    attempts: int = 5
    crashes: int = 5
    backoff_seconds: float = 1.0
    backoff_limit_seconds: float = 120.0
    unavailable_limit_seconds: float = 15.0
    dead_stream: str
    progress_stream: str | None = None
    keep_seconds: float = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Tailed:
    """An entry read for looking at, outside any group: `envelope`, or the reason why it cannot be decoded."""

    stream: str
    entry_id: str
    fields: Mapping[str, bytes]
    envelope: Envelope | None
    error: str | None = None


class Speaker(Protocol):
    """The half of the bus that says and remembers. Every method raises `BusError` when Redis is away."""

    async def publish(self, stream: str, *envelopes: Envelope) -> None:
        """Add each envelope once, however often this is called with the same `source` + `id`."""

    async def commit(self, outcome: Outcome) -> None:
        """An outcome without an entry: all of it or nothing. Raises RecordConflict."""

    async def load(self, key: str) -> Record | None: ...

    async def load_many(self, keys: Sequence[str]) -> list[Record | None]: ...

    async def members(self, key: str, *, low: float = float("-inf"), high: float = float("inf")) -> list[str]:
        """Members of a sorted set with a score in [low, high], lowest score first."""

    async def beat(self, key: str, value: bytes, expires_seconds: float) -> None:
        """Set a key that expires unless beaten again."""

    async def beats(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of beaten keys, None where the heart has stopped."""

    async def discover(self, pattern: str) -> list[str]:
        """The names of all streams that match a glob, sorted."""

    def tail(
        self, streams: Sequence[str], *, after: str | Mapping[str, str] = "$", follow: bool = True
    ) -> AsyncIterator[Tailed]:
        """Entries as they come (`after="0"`: from the first), outside any group. Without `follow`, ends at the end."""
