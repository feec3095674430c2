"""Lease of an entry, with fencing: the exclusive claim of one worker; and the port that takes, renews and settles
leases.

A lease is not kept beside the entry, it **is** the entry's line in the group's pending list: the consumer (one
incarnation of one worker) and the delivery count. A takeover changes one or both. They are the
fencing token: every script refuses a worker that was replaced, however late its call arrives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, Self

from events.bus import BusClient, Outcome, Post
from events.codec import dedup_key

#: What a deferral counts: a failed attempt, a wait for a dependency that is unavailable, or nothing.
Counted = Literal["failed", "waited", ""]


@dataclass(frozen=True, slots=True)
class Holder:
    """One start of a worker, the holder of leases.

    `owner` is unique for every start, so an old one never equals a new one.
    """

    group: str
    owner: str
    lease_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class SingleFlightLock:
    """Single-flight lock: of all entries with one `key` in a group, one is handled at a time.

    The lock is kept under the stream `home`, the same one for all streams of a subscription.
    """

    home: str
    key: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A leased entry. `fields` are raw and may be malformed; the counts are of earlier runs.

    `flat` are all names and values in the order of the entry, for an entry in which a name occurs twice.
    """

    stream: str
    entry_id: str
    holder: Holder
    deliveries: int
    fields: Mapping[bytes, bytes] = field(repr=False, compare=False)
    failed: int = 0
    crashed: int = 0
    waited: int = 0
    single_flight: SingleFlightLock | None = None
    flat: Sequence[bytes] = field(default=(), repr=False, compare=False)

    @property
    def identity(self) -> bytes:
        """`source` and `id` of an entry that has them, otherwise its place in its stream."""
        return identity_of(self.entry_id, self.fields)

    @property
    def place(self) -> tuple[str, str]:
        return self.stream, self.entry_id

    def acquired(self, single_flight: SingleFlightLock) -> Self:
        return replace(self, single_flight=single_flight)


def identity_of(entry_id: str, fields: Mapping[bytes, bytes]) -> bytes:
    """The identity that duplicates of an event share; prelude.lua computes the same."""
    event = fields.get(b"id", b"")
    return dedup_key(fields.get(b"source", b""), event) if event else dedup_key(b"", entry_id)


@dataclass(frozen=True, slots=True)
class DeadLetterReason:
    """Why an entry is given up: the fields of the dead letter on `stream` beside the raw ones.

    With `keep`, the stream holds about so many letters, and a letter holds only the beginning of its entry.
    """

    stream: str
    code: str
    reason: str
    time: str
    keep: int | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """Entries leased, and how many duplicates of finished events were acknowledged instead.

    `skipped` is how many keys were skipped because they are of another kind; the bus logs their names. `due_seconds` is
    how long until the next deferred entry or timer of the streams that were looked at is due; None: none is known.
    """

    leases: Sequence[Lease] = ()
    absorbed: int = 0
    skipped: int = field(default=0, kw_only=True)
    due_seconds: float | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Recovered(Taken):
    """Entries leased from crashed holders (`takeovers`), and orphaned pending entries whose reply was lost
    (`orphaned`).
    """

    takeovers: int = 0
    orphaned: int = 0


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """A pending entry: given to a group and not acknowledged.

    `owner` is None while it is deferred. `lease_left_seconds` is below 0 where another worker may take the entry,
    None where its owner did not say how long its leases are.
    """

    entry_id: str
    owner: str | None
    idle_seconds: float
    deliveries: int
    age_seconds: float
    progress: bytes | None = None
    lease_left_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """Backlog of one consumer group on one stream.

    `lag` is None where Redis cannot tell it; ages are 0 where nothing waits.
    """

    stream: str
    group: str
    lag: int | None
    pending: int
    deferred: int
    oldest_unacked_seconds: float
    oldest_undelivered_seconds: float
    entries: Sequence[PendingEntry] = ()


class Bus(BusClient, Protocol):
    """The bus port of workers. Every method may be repeated with the same arguments.

    `LeaseLost`: nothing was done, another worker has the entry. `BusUnavailable`: it is not known whether it was
    done, try again. `BusRefused`: nothing was done, and another try will not help.
    """

    async def take(self, holder: Holder, streams: Sequence[str], count: int) -> Taken:
        """Lease up to `count` entries: deferred ones that are due, then new ones. Moves timers that are due first.

        A group that does not exist is created, from the first entry on.
        """

    async def wait(self, holder: Holder, streams: Sequence[str], seconds: float) -> None:
        """Return when there may be an entry to take, at the latest after `seconds`. Takes no entry itself."""

    async def recover(
        self,
        holder: Holder,
        streams: Sequence[str],
        count: int,
        held: Sequence[tuple[str, str]],
        *,
        blameless: bool = False,
    ) -> Recovered:
        """Lease entries whose holder's lease ran out, and own ones that are not in `held` (a reply was lost).

        A lease that ran out counts as a crash of the entry, except `blameless`: nobody could renew.
        """

    async def introduce(self, holder: Holder, streams: Sequence[str], idle_seconds: float) -> int:
        """Register how long this holder's leases are, and remove holders that hold nothing and were idle for
        `idle_seconds`.

        Returns how many were removed. An entry of a holder that did not register is judged by its finder's own
        lease.
        """

    async def acquire(self, lease: Lease, single_flight: SingleFlightLock) -> bool:
        """Take the single-flight lock for this lease.

        If another entry holds it, this one is deferred until that one ends.
        """

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        """Renew the leases that are still held, with the progress of each; return those that are lost."""

    async def finish(self, lease: Lease, outcome: Outcome) -> bool:
        """Commit and acknowledge in one step. Raises RecordConflict. False: the event had an outcome already."""

    async def defer(self, lease: Lease, seconds: float, counted: Counted) -> None:
        """Defer the entry for `seconds`; nobody gets it before."""

    async def dead_letter(self, lease: Lease, letter: DeadLetterReason, outcome: Outcome) -> bool:
        """Move the entry to the dead letters, and commit the outcome with it, as `finish` does."""

    async def release(self, leases: Sequence[Lease]) -> None:
        """Release leases at once, uncounted; those lost meanwhile are skipped."""

    async def trim(self, stream: str, keep_seconds: float) -> int:
        """Drop entries older than `keep_seconds` that every group has acknowledged. Returns how many."""

    async def groups(self, streams: Sequence[str], entries: int = 100) -> list[GroupStatus]:
        """The status of each group of each stream, with at most `entries` pending ones each, oldest first."""

    async def revisions(self, keys: Sequence[str]) -> list[int]:
        """The revision of each record, to see which of many changed; 0 where there is none."""

    async def lengths(self, streams: Sequence[str]) -> list[int]:
        """How many entries each stream has."""

    async def weights(self, streams: Sequence[str]) -> list[int]:
        """The approximate size of each stream in bytes; 0 for one that does not exist."""

    async def redrive(self, dead_stream: str, letter_id: str) -> bool:
        """Publish a dead letter's entry to its stream again, and clear the group's outcome of it.

        False: the letter is gone.
        """

    async def drop(self, dead_stream: str, letter_id: str) -> bool:
        """Delete a dead letter. False: it is gone already."""
