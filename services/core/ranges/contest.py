"""Contested ranges: two agents with one range id on two engines, told from the heartbeats that they overwrite.

    {prefix}:contested:<range_id>    ContestedRange, deleted once one agent alone was seen for a while
    {prefix}:index:contested         their range ids by the time of the last evidence

A range that is recreated has a new agent and a new engine too, but its earlier agent never returns. So the evidence of
two is an agent that **returns** after one with another engine had taken its place. Two agents on one engine do each
other no harm and are no conflict.

A range writes its own heartbeat: whatever it writes there, it can only hold up itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from events.records import Key
from services.core.ranges.heartbeat import AgentHeartbeat

#: A heartbeat is compared with those of this time before it.
MEMORY = timedelta(seconds=60)
#: A conflict is over when there was no evidence for so long: six beats.
QUIET = timedelta(seconds=30)
_REMEMBERED = 16


class ContestedRange(msgspec.Struct, frozen=True, kw_only=True):
    """Two agents speak for a range: on which engines, since when, and when that was seen last."""

    range_id: str
    engine_ids: tuple[str, ...]
    since: datetime
    seen_at: datetime

    def is_over(self, now: datetime) -> bool:
        return now - self.seen_at > QUIET

    def explain(self) -> str:
        """What is wrong and what to do, for people."""
        engines = " and ".join(self.engine_ids)
        return (
            f"two agents speak for range {self.range_id}, on the engines {engines}: end one of them, or give it a"
            " range id of its own"
        )


@dataclass(frozen=True, slots=True)
class ContestKeys:
    """Names of the records and their index."""

    prefix: str

    def record(self, range_id: str) -> Key[ContestedRange]:
        return Key(f"{self.prefix}:contested:{range_id}", ContestedRange)

    @property
    def index(self) -> str:
        return f"{self.prefix}:index:contested"


class _Speaker(NamedTuple):
    """Whose heartbeat it was, and when it was first seen in a row."""

    incarnation: str
    engine_id: str
    at: datetime


class HeartbeatHistory:
    """The heartbeats of one range as one process saw them."""

    def __init__(self) -> None:
        self._speakers: deque[_Speaker] = deque(maxlen=_REMEMBERED)

    def see(self, beat: AgentHeartbeat, now: datetime) -> tuple[str, ...]:
        """The engine ids of the agents that this heartbeat shows to be two, sorted; none if it shows nothing."""
        if not beat.engine_id:
            return ()
        if beat.displaced_by and beat.displaced_by != beat.engine_id:
            self._note(beat, now)
            return tuple(sorted({beat.displaced_by, beat.engine_id}))
        if not self._note(beat, now):
            return ()
        earlier = [one for one in list(self._speakers)[:-1] if now - one.at <= MEMORY]
        own = [place for place, one in enumerate(earlier) if one[:2] == (beat.incarnation, beat.engine_id)]
        others = {one.engine_id for one in earlier[own[-1] :]} - {beat.engine_id} if own else set[str]()
        return tuple(sorted(others | {beat.engine_id})) if others else ()

    def _note(self, beat: AgentHeartbeat, now: datetime) -> bool:
        """Whether another one speaks than at the last look."""
        last = self._speakers[-1] if self._speakers else None
        if last is not None and last[:2] == (beat.incarnation, beat.engine_id):
            self._speakers[-1] = last._replace(at=now)
            return False
        self._speakers.append(_Speaker(beat.incarnation, beat.engine_id, now))
        return True
