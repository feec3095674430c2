"""Push records: who asked for a push, why, its state, and its result or error.

    {prefix}:push:<push_id>     PushRecord, kept for 30 days; the id is that of the event that asked for the push
    {prefix}:index:pushes       push ids by the time they were asked for
    {prefix}:index:push-changes push ids by the time of their last change

The tracker writes it from the events of the images stream, in whatever order they come: an end is never overwritten by
a request that is read later.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from events.bus import IndexWrite, Outcome
from events.envelope import Envelope
from events.messages import Failure, ImageAppeared, ImagePushed, ImagePushFailed, PushRequested, PushSkipped
from events.records import Key, Stored

PushState = Literal["requested", "pushing", "pushed", "failed", "skipped"]
KEPT_SECONDS = 30 * 86400.0


class PushResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a push brought: bytes sent, and bytes that the registry had already."""

    manifest_digest: str
    sent_bytes: int
    reused_bytes: int
    method: str
    seconds: float


class PushRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One push. `why`: manual, on_demand, auto, prompt. `actor` asked, by the program `source`, as far as known."""

    id: str
    reference: str
    asked_at: datetime
    changed_at: datetime
    state: PushState = "requested"
    why: str = "manual"
    image_id: str | None = None
    actor: str = ""
    source: str = ""
    ended_at: datetime | None = None
    result: PushResult | None = None
    error: Failure | None = None

    @property
    def ended(self) -> bool:
        return self.ended_at is not None


@dataclass(frozen=True, slots=True)
class PushKeys:
    """Names under a key prefix."""

    prefix: str

    def record(self, push_id: str) -> Key[PushRecord]:
        return Key(f"{self.prefix}:push:{push_id}", PushRecord)

    @property
    def all(self) -> str:
        return f"{self.prefix}:index:pushes"

    @property
    def changes(self) -> str:
        return f"{self.prefix}:index:push-changes"


def requested(envelope: Envelope, message: PushRequested | ImageAppeared) -> PushRecord:
    """The record of a push that was asked for, or that an image's appearance led to."""
    return PushRecord(
        id=envelope.id,
        reference=message.reference,
        asked_at=envelope.time,
        changed_at=envelope.time,
        why=message.why if isinstance(message, PushRequested) else "auto",
        image_id=message.image_id,
        actor=envelope.actor,
        source=envelope.source,
    )


def ended(before: PushRecord | None, envelope: Envelope, message: ImagePushed | ImagePushFailed) -> PushRecord:
    """The record after the push's end. Without an earlier one it was an automatic push of an image that appeared."""
    cause = envelope.causation_id or envelope.id
    known = before or PushRecord(
        id=cause, reference=message.reference, asked_at=envelope.time, changed_at=envelope.time, why="auto"
    )
    known = msgspec.structs.replace(
        known, image_id=message.image_id or known.image_id, changed_at=envelope.time, ended_at=envelope.time
    )
    if isinstance(message, ImagePushFailed):
        return msgspec.structs.replace(known, state="failed", error=message.error)
    result = PushResult(
        manifest_digest=message.manifest_digest,
        sent_bytes=message.sent_bytes,
        reused_bytes=message.reused_bytes,
        method=message.method,
        seconds=message.seconds,
    )
    actor, source = known.actor or message.actor, known.source or message.source
    return msgspec.structs.replace(known, state="pushed", result=result, error=None, actor=actor, source=source)


def skipped(envelope: Envelope, message: PushSkipped) -> PushRecord:
    """The record of a push that somebody decided against."""
    return PushRecord(
        id=envelope.id,
        reference=message.reference,
        asked_at=envelope.time,
        changed_at=envelope.time,
        state="skipped",
        why="prompt",
        image_id=message.image_id,
        actor=envelope.actor,
        source=envelope.source,
        ended_at=envelope.time,
    )


def written(keys: PushKeys, stored: Stored[PushRecord], after: PushRecord, now: datetime) -> Outcome:
    """The writes of a record and its indexes."""
    return Outcome(
        records=(keys.record(after.id).write(after, expected=stored, expires_seconds=KEPT_SECONDS),),
        index=(
            IndexWrite(keys.all, after.id, after.asked_at.timestamp()),
            IndexWrite(keys.changes, after.id, now.timestamp()),
        ),
    )
