"""The gateway protocol: what the agent of a range may ask of the bus, as typed structures.

A range has no account in Redis. Its agent opens one TCP connection to the gateway and sends frames: four bytes of
length (unsigned, big endian), then MessagePack. The first frame is `Hello`, answered by `Welcome`. After that every
frame of the agent is a `Call`, answered by a `Reply` with the same number, in any order; the gateway sends an
`InboxChanged` frame of its own accord when the inbox may have something to take.

No request names a stream or a key. The gateway knows which range it speaks with, and so which inbox, outbox, progress
stream and dead-letter stream are meant. Strings and lists have their bounds here; the gateway decodes with them before
it does anything.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

VERSION = 1

#: What one frame may weigh that an agent sends: an entry of `ENTRY_BYTES` and what is around it.
ENTRY_BYTES = 64 * 1024
FRAME_BYTES = ENTRY_BYTES + 16 * 1024
#: A list of all images of an engine is larger: about 1 KiB for each image of ten layers.
LIST_ENTRY_BYTES = 512 * 1024
LIST_FRAME_BYTES = LIST_ENTRY_BYTES + 16 * 1024
#: What one frame may weigh that the gateway sends: entries of the services, each up to 1 MiB.
ANSWER_BYTES = 32 * 1024 * 1024

Group = Literal["agent", "agent-cancel"]
Counted = Literal["failed", "waited", ""]
END = r"$(?!\n)"
Owner = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_.@-]{{1,200}}{END}")]
EntryId = Annotated[str, Meta(pattern=rf"^[0-9]{{1,20}}-[0-9]{{1,20}}{END}")]
TransferId = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,127}}{END}")]
RangeId = TransferId
LeaseSeconds = Annotated[float, Meta(ge=0.05, le=3600.0)]
Attribute = Annotated[bytes, Meta(max_length=512)]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Fields = dict[bytes, bytes]


class Holder(msgspec.Struct, frozen=True, array_like=True):
    """The worker that asks: `events.lease.Holder` without the parts that the gateway knows itself."""

    group: Group
    owner: Owner
    lease_seconds: LeaseSeconds


class HeldLease(msgspec.Struct, frozen=True, array_like=True):
    """A lease that the agent claims to hold; the fence in Redis checks it.

    `key` is its single-flight key, if it has one. `source` and `event` are the entry's `source` and `id`, under
    which its outcome is remembered.
    """

    holder: Holder
    entry_id: EntryId
    deliveries: Count
    source: Attribute = b""
    event: Attribute = b""
    key: Annotated[str, Meta(max_length=256)] | None = None
    failed: Count = 0
    crashed: Count = 0


class RangeMessage(msgspec.Struct, frozen=True, array_like=True):
    """A message that the range publishes, as the fields of an entry (`events.codec`)."""

    to: Literal["outbox", "progress"]
    fields: Fields


class CancelledNote(msgspec.Struct, frozen=True, array_like=True):
    """A record of the agent: this transfer was cancelled."""

    transfer_id: TransferId
    expires_seconds: Annotated[float, Meta(gt=0, le=86400.0)]


RangeMessages = Annotated[tuple[RangeMessage, ...], Meta(max_length=8)]
CancelledNotes = Annotated[tuple[CancelledNote, ...], Meta(max_length=8)]


class _Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="ask"):
    pass


class Take(_Request, frozen=True, kw_only=True, tag="take"):
    """Request: lease entries of the inbox."""

    holder: Holder
    count: Annotated[int, Meta(ge=1, le=64)]


class Recover(_Request, frozen=True, kw_only=True, tag="recover"):
    """`held` are the ids of the entries that this owner knows it holds."""

    holder: Holder
    count: Annotated[int, Meta(ge=1, le=64)]
    held: Annotated[tuple[EntryId, ...], Meta(max_length=256)] = ()
    blameless: bool = False


class Introduce(_Request, frozen=True, kw_only=True, tag="introduce"):
    """Request: register this worker and the length of its leases."""

    holder: Holder
    idle_seconds: Annotated[float, Meta(ge=60.0, le=31_536_000.0)]


class Acquire(_Request, frozen=True, kw_only=True, tag="acquire"):
    """Request: take the single-flight lock of a lease."""

    lease: HeldLease
    key: Annotated[str, Meta(min_length=1, max_length=256)]


class Renew(_Request, frozen=True, kw_only=True, tag="renew"):
    """Each lease with the progress that is met beside it."""

    leases: Annotated[tuple[tuple[HeldLease, RangeMessage | None], ...], Meta(min_length=1, max_length=64)]


class Finish(_Request, frozen=True, kw_only=True, tag="finish"):
    """Request: commit the outcome and acknowledge the entry."""

    lease: HeldLease
    messages: RangeMessages = ()
    notes: CancelledNotes = ()


class DeadLetter(_Request, frozen=True, kw_only=True, tag="dead_letter"):
    """`flat` are names and values in turn of the entry that is given up, as far as they are worth keeping."""

    lease: HeldLease
    code: Annotated[str, Meta(max_length=128)]
    reason: Annotated[str, Meta(max_length=4096)]
    time: Annotated[str, Meta(max_length=40)]
    flat: Annotated[tuple[bytes, ...], Meta(max_length=200)] = ()
    messages: RangeMessages = ()
    notes: CancelledNotes = ()


class Defer(_Request, frozen=True, kw_only=True, tag="defer"):
    """Request: defer an entry for some seconds."""

    lease: HeldLease
    seconds: Annotated[float, Meta(ge=0, le=86400.0)]
    counted: Counted


class Release(_Request, frozen=True, kw_only=True, tag="release"):
    """Request: release leases at once, uncounted."""

    leases: Annotated[tuple[HeldLease, ...], Meta(min_length=1, max_length=64)]


class Trim(_Request, frozen=True, kw_only=True, tag="trim"):
    """Request: drop old entries of the inbox that are acknowledged."""

    keep_seconds: Annotated[float, Meta(ge=60.0, le=31_536_000.0)]


class Commit(_Request, frozen=True, kw_only=True, tag="commit"):
    """Request: commit an outcome without an entry."""

    messages: RangeMessages = ()
    notes: CancelledNotes = ()


class Marked(_Request, frozen=True, kw_only=True, tag="marked"):
    """Request: which of these transfers are marked as cancelled."""

    transfer_ids: Annotated[tuple[TransferId, ...], Meta(min_length=1, max_length=64)]


class Beat(_Request, frozen=True, kw_only=True, tag="beat"):
    """Request: send the range's heartbeat."""

    value: Annotated[bytes, Meta(max_length=2048)]
    expires_seconds: Annotated[float, Meta(gt=0, le=300.0)]


class LastBeat(_Request, frozen=True, kw_only=True, tag="last_beat"):
    """Request: the value of the range's own heartbeat, if it has not expired."""


Request = (
    Take
    | Recover
    | Introduce
    | Acquire
    | Renew
    | Finish
    | DeadLetter
    | Defer
    | Release
    | Trim
    | Commit
    | Marked
    | Beat
    | LastBeat
)


class Hello(msgspec.Struct, frozen=True, tag_field="ask", tag="hello"):
    """The first frame. `secret` is the range's own."""

    range_id: RangeId
    secret: Annotated[str, Meta(min_length=1, max_length=256)] = msgspec.field()
    version: int = VERSION


class Call(msgspec.Struct, frozen=True, array_like=True):
    """A numbered request of the agent."""

    number: Annotated[int, Meta(ge=1, le=2**53)]
    request: Request


ErrorCode = Literal["away", "denied", "refused", "lost", "conflict"]


class Welcome(msgspec.Struct, frozen=True, tag_field="kind", tag="welcome"):
    """The answer to Hello. With `error` set the gateway refuses the range (for now), and the connection ends."""

    error: ErrorCode | None = None
    message: str = ""


class Reply(msgspec.Struct, frozen=True, tag_field="kind", tag="reply"):
    """The answer to the request of the same number: `value` depends on the request; with an `error` there is none."""

    number: int
    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    error: ErrorCode | None = None
    message: str = ""


class InboxChanged(msgspec.Struct, frozen=True, tag_field="kind", tag="inbox_changed"):
    """Notification: the inbox may have a new entry."""


Answer = Welcome | Reply | InboxChanged


class TakenEntry(msgspec.Struct, frozen=True, array_like=True):
    """A lease and the entry it is on. `flat` are the entry's names and values in turn."""

    entry_id: str
    deliveries: int
    failed: int
    crashed: int
    waited: int
    flat: tuple[bytes, ...]


class Leased(msgspec.Struct, frozen=True, array_like=True):
    """The answer to `Take` and `Recover`. `due_seconds`: until the next deferred entry is due, if one is known."""

    entries: tuple[TakenEntry, ...] = ()
    absorbed: int = 0
    takeovers: int = 0
    orphaned: int = 0
    skipped: int = 0
    due_seconds: float | None = None
