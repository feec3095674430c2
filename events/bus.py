"""Bus client port: publish and consume messages; deliveries, outcomes and errors of handlers.

A **handler** gets a `Delivery` and returns an `Outcome`: the messages to publish and the records to write. The worker
(`events.worker.worker`) holds a lease on the entry while the handler runs, and the bus commits the outcome **atomically
with the acknowledgement**, only if the lease is still held. So a handler may run twice, but its outcome takes effect
once.

A handler that cannot do its work raises one of three kinds of error:

    Permanent       no retry can help (schema, not found, refused)      → dead letter now
    Transient       another try may help (5xx, timeout)                 → backoff with jitter, counted
    Unavailable     a dependency is down (Redis, engine, registry)      → backoff, never counted

An error of any kind that is `final` counts as Permanent.
Anything else that escapes a handler counts as Transient, except what the bus itself raised: `BusUnavailable` is
Unavailable, `RecordConflict` runs the handler again at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar, cast

from events.envelope import Envelope
from events.messages import TransferProgress

M_co = TypeVar("M_co", covariant=True)


class HandlingError(Exception):
    """Why a handler gave up. `code` is stable, the text is for a person.

    `final`: no other try can help, whichever kind of error it is.
    """

    code = "handling_error"
    final = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class Permanent(HandlingError):
    """No retry can help: the entry goes to the dead letters at once."""

    code = "permanent"
    final = True


class Transient(HandlingError):
    """Another try may help: backoff with jitter; after `Subscription.attempts` the entry goes to the dead letters."""

    code = "transient"


class Unavailable(HandlingError):
    """Redis, an engine or the registry is unavailable: tried again without a limit, and never counted as a failure."""

    code = "unavailable"


class BusError(Exception):
    """An operation of the bus failed."""


class BusUnavailable(BusError):
    """Redis cannot be reached, is starting, failing over or out of memory. The operation may have taken effect."""


class BusUnreachable(BusUnavailable):
    """Redis cannot be connected to: it does not run, or has another address."""


class BusDenied(BusUnavailable):
    """Redis refuses our user, password or certificate, or has one that we refuse, until somebody corrects that."""


class BusRefused(BusError):
    """The operation cannot be done as it is: too large, not permitted, a key of another kind. Nothing took effect."""


class LeaseLost(BusError):
    """Another worker holds the entry's lease now; nothing of this run was committed."""


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
    """Set `key` to `value` (None deletes) if its revision is still `expected` (0: absent; None: any revision)."""

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
    """Everything that a handled entry leads to, committed in one step with its acknowledgement."""

    posts: tuple[Post, ...] = ()
    records: tuple[RecordWrite, ...] = ()
    index: tuple[IndexWrite, ...] = ()


NOTHING = Outcome()


def _ignore_progress(progress: TransferProgress) -> None:
    """Discard progress: nobody follows it."""


@dataclass(frozen=True, slots=True)
class Delivery(Generic[M_co]):
    """One entry as its handler gets it.

    `attempt` is 1 for the first run; crashes of a worker are counted apart. `report` keeps the latest progress,
    which is sent with the next renewal of the lease.
    """

    envelope: Envelope
    stream: str
    entry_id: str
    attempt: int = 1
    report: Callable[[TransferProgress], None] = _ignore_progress

    @property
    def message(self) -> M_co:
        """The message, of the type that the handler was registered for."""
        return cast(M_co, self.envelope.message)


@dataclass(frozen=True, slots=True)
class Tailed:
    """An entry that was read outside any group: its `envelope`, or the reason why it cannot be decoded."""

    stream: str
    entry_id: str
    fields: Mapping[str, bytes]
    envelope: Envelope | None
    error: str | None = None


class BusClient(Protocol):
    """The client half of the bus: publishing, records, reading.

    Every method raises `BusError` when Redis is unavailable.
    """

    async def publish(self, stream: str, *envelopes: Envelope) -> None:
        """Publish each envelope once, however often this is called with the same `source` and `id`."""

    async def commit(self, outcome: Outcome) -> None:
        """Commit an outcome without an entry: all of it or nothing. Raises RecordConflict."""

    async def load(self, key: str) -> Record | None: ...

    async def load_many(self, keys: Sequence[str]) -> list[Record | None]: ...

    async def members(self, key: str, *, low: float = float("-inf"), high: float = float("inf")) -> list[str]:
        """Members of a sorted set with a score in [low, high], in the order of their scores."""

    async def beat(self, key: str, value: bytes, expires_seconds: float) -> None:
        """Set a heartbeat key, which expires unless it is set again."""

    async def beats(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of heartbeat keys; None for each that has expired."""

    async def discover(self, pattern: str) -> list[str]:
        """The names of all streams that match a glob, sorted."""

    def tail(
        self, streams: Sequence[str], *, after: str | Mapping[str, str] = "$", follow: bool = True
    ) -> AsyncGenerator[Tailed]:
        """Entries as they come (`after="0"`: from the first), outside any group. Without `follow`, ends at the end."""
