"""The lease: one worker's hold on one entry, and the port through which workers deal with leases.

A lease is not kept beside the entry, it **is** the entry's line in the group's pending list: the consumer (one
incarnation of one worker) and the delivery count. Whoever takes an entry over changes one or both, so every script can
tell a worker that was replaced, however late it comes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, Self

from events.bus import Outcome, Post, Speaker
from events.codec import dedup_key

#: What putting aside counts: a failed attempt, a wait for something that is away, or nothing.
Counted = Literal["failed", "waited", ""]


@dataclass(frozen=True, slots=True)
class Holder:
    """One incarnation of a worker: `owner` is unique for every start, so that an old one can never pass for a new."""

    group: str
    owner: str
    lease_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Flight:
    """What makes handling single-flight: of all entries with one `key` in a group, one is handled at a time.

    The lock is kept under the stream `home`, the same one for all streams of a subscription.
    """

    home: str
    key: str


@dataclass(frozen=True, slots=True)
class Lease:
    """An entry in a worker's hands. `fields` are raw, perhaps malformed; the counts are of earlier runs.

    `flat` are all names and values as they lie there, for an entry in which a name comes twice.
    """

    stream: str
    entry_id: str
    holder: Holder
    deliveries: int
    fields: Mapping[bytes, bytes] = field(repr=False, compare=False)
    failed: int = 0
    crashed: int = 0
    waited: int = 0
    flight: Flight | None = None
    flat: Sequence[bytes] = field(default=(), repr=False, compare=False)

    @property
    def identity(self) -> bytes:
        """`source` + `id` for an entry that has them, else its own place in its stream."""
        return identity_of(self.entry_id, self.fields)

    @property
    def place(self) -> tuple[str, str]:
        return self.stream, self.entry_id

    def boarded(self, flight: Flight) -> Self:
        return replace(self, flight=flight)


def identity_of(entry_id: str, fields: Mapping[bytes, bytes]) -> bytes:
    """What duplicates of an event have in common; prelude.lua computes the same."""
    event = fields.get(b"id", b"")
    return dedup_key(fields.get(b"source", b""), event) if event else dedup_key(b"", entry_id)


@dataclass(frozen=True, slots=True)
class Letter:
    """Why an entry is given up: what the dead letter on `stream` says beside the raw fields."""

    stream: str
    code: str
    reason: str
    time: str


@dataclass(frozen=True, slots=True)
class Taken:
    """Entries leased, and how many duplicates of finished events were acknowledged instead.

    `spoilt` is how many keys were passed over because they are not what they should be; the bus's log names them.
    """

    leases: Sequence[Lease] = ()
    absorbed: int = 0
    spoilt: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class Recovered(Taken):
    """Entries leased from vanished holders (`takeovers`) or whose hand-over got lost (`phantoms`)."""

    takeovers: int = 0
    phantoms: int = 0


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """One entry that a group was given and has not acknowledged. `owner` is None while it is put aside.

    `lease_left_seconds` is below 0 where another worker may take the entry, None where its owner told no length.
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
    """How one group stands on one stream. `lag` is None where Redis cannot tell it; ages are 0 where nothing waits."""

    stream: str
    group: str
    lag: int | None
    pending: int
    deferred: int
    oldest_unacked_seconds: float
    oldest_undelivered_seconds: float
    entries: Sequence[PendingEntry] = ()


class Bus(Speaker, Protocol):
    """The whole bus. Every method may be repeated with the same arguments.

    `LeaseLost`: nothing was done, another worker has the entry. `BusAway`: not known, try again. `BusRefused`: nothing
    was done and trying again will not help.
    """

    async def take(self, holder: Holder, streams: Sequence[str], count: int) -> Taken:
        """Lease up to `count` entries: deferred ones that are due, then new ones. Moves due timers on the way.

        A group that does not exist (any more) is made, from the first entry on.
        """

    async def wait(self, holder: Holder, streams: Sequence[str], seconds: float) -> None:
        """Return when there may be something to take, at the latest after `seconds`. Takes nothing itself."""

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
        """Tell others how long this holder's leases are, and forget holders that have nothing and did nothing for
        `idle_seconds`; how many. An entry of a holder that told nothing is judged by its finder's own lease."""

    async def board(self, lease: Lease, flight: Flight) -> bool:
        """Take the flight's lock for this lease. If another entry has it, this one is put aside until that ends."""

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        """Renew the leases that are still held, telling the progress beside each; return those that are lost."""

    async def finish(self, lease: Lease, outcome: Outcome) -> bool:
        """Commit and acknowledge in one step. Raises RecordConflict. False: the event had an outcome already."""

    async def defer(self, lease: Lease, seconds: float, counted: Counted) -> None:
        """Put aside for `seconds`; nobody gets it before."""

    async def bury(self, lease: Lease, letter: Letter, outcome: Outcome) -> bool:
        """To the dead letters, together with the outcome, as `finish`."""

    async def release(self, leases: Sequence[Lease]) -> None:
        """Hand back at once, uncounted; those lost meanwhile are passed over."""

    async def trim(self, stream: str, keep_seconds: float) -> int:
        """Drop entries older than `keep_seconds` that every group has acknowledged; how many."""

    async def groups(self, streams: Sequence[str], entries: int = 100) -> list[GroupStatus]:
        """How each group of each stream stands, with at most `entries` pending ones each, oldest first."""

    async def lengths(self, streams: Sequence[str]) -> list[int]:
        """How many entries lie on each stream."""

    async def redrive(self, dead_stream: str, letter_id: str) -> bool:
        """Send a dead letter's entry to its stream again, and forget that its group gave it up. False: it is gone."""

    async def drop(self, dead_stream: str, letter_id: str) -> bool:
        """Remove a dead letter for good. False: it is gone."""
