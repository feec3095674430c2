"""Envelope of an entry: CloudEvents attributes around one message.

`id` is a UUIDv7 (time-ordered), and with `source` the deduplication key: publishing the same `source` + `id` twice adds
one entry. `correlation_id` stays the same through everything one request causes; `causation_id` is the `id` of the
entry that caused this one. `actor` is who asked for a command, where that is known: a user's or a token's name.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from events.messages import Message


def new_id() -> str:
    """A UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds, then randomness; sorts by time as text."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(UUID(int=value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One message with its CloudEvents attributes: who published it, when, about what, and because of what.

    `time` is aware, in UTC.
    """

    message: Message
    source: str
    subject: str
    id: str = field(default_factory=new_id)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    correlation_id: str = ""
    causation_id: str | None = None
    traceparent: str | None = None
    actor: str = ""

    def __post_init__(self) -> None:
        if not self.correlation_id:
            object.__setattr__(self, "correlation_id", self.id)

    def causes(self, message: Message, *, source: str, subject: str) -> Envelope:
        """A new envelope for a message that follows from this one: same correlation id, this one's id as causation
        id.
        """
        return Envelope(
            message=message,
            source=source,
            subject=subject,
            correlation_id=self.correlation_id,
            causation_id=self.id,
            traceparent=self.traceparent,
        )

    def with_id(self, event_id: str) -> Self:
        """A copy under a chosen `id`, for a step that may run twice and must publish once."""
        return replace(self, id=event_id)
