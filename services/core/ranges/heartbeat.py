"""The heartbeat of a range's agent: the value under `Streams.alive`, which expires when the agent stops beating."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from events.malformed import MALFORMED

Short = Annotated[str, msgspec.Meta(max_length=128)]


class AgentHeartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of itself with every beat. `at` is by the range's clock, as it wrote it.

    `displaced_by` is another engine's id: this agent found the beat of an agent there in place of its own last one.

    The range writes the value itself, so a reader gets it through `read` and believes nothing of it.
    """

    engine_id: Short = ""
    incarnation: Short = ""
    engine_version: Short = ""
    at: Short = ""
    displaced_by: Short = ""

    @classmethod
    def now(
        cls, *, engine_id: str, incarnation: str, engine_version: str, at: datetime, displaced_by: str = ""
    ) -> AgentHeartbeat:
        return cls(
            engine_id=engine_id,
            incarnation=incarnation,
            engine_version=engine_version,
            at=at.isoformat(),
            displaced_by=displaced_by,
        )

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def read(cls, value: bytes | None) -> AgentHeartbeat | None:
        """None where there is no beat, or one that is no heartbeat."""
        try:
            return None if value is None else msgspec.json.decode(value, type=cls)
        except MALFORMED:
            return None


def engine_of(beat: bytes | None) -> str | None:
    """The engine id in a heartbeat; None where it says none."""
    heartbeat = AgentHeartbeat.read(beat)
    return heartbeat.engine_id or None if heartbeat is not None else None
