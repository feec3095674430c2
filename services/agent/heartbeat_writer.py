"""Heartbeat writer of an agent: writes each beat, and notices the beats of another agent under the same range id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from events.bus import BusClient
from events.envelope import new_id
from services.core.images.image import EngineInfo
from services.core.ranges.heartbeat import AgentHeartbeat
from services.runtime.telemetry import get_logger

#: So many beats of its own in a row, and the other agent is gone.
_ALONE_BEATS = 4
#: The pause before an engine that does not answer is asked again.
SOON_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatInterval:
    """Intervals of the heartbeat: how often it is sent, how long an engine may take, how often its identity is asked
    for.

    Every `inspect_beats` beats the agent checks whether somebody else brought or removed images.
    """

    beat_seconds: float = 5.0
    answer_seconds: float = 10.0
    identify_seconds: float = 30.0
    inspect_beats: int = 12

    def pause_seconds(self, away_seconds: float | None) -> float:
        """The pause before the next beat; `away_seconds` is how long the engine has not answered (None: it does).

        One that has just been started is asked again soon, as it may lack everything.
        """
        if away_seconds is None:
            return self.beat_seconds
        return min(self.beat_seconds, max(SOON_SECONDS, away_seconds / 10))

    @property
    def inspect_seconds(self) -> float:
        return self.inspect_beats * self.beat_seconds


class HeartbeatWriter:
    """Beats under `key`. The incarnation names this process' life: an agent that starts again has another."""

    def __init__(self, bus: BusClient, key: str, *, range_id: str, lasts_seconds: float) -> None:
        self._bus = bus
        self._key = key
        self._lasts = lasts_seconds
        self._incarnation = new_id()
        self._beaten = False
        self._contested_beats = 0
        self._log = get_logger(role="agent", range=range_id)

    async def beat(self, info: EngineInfo) -> bool:
        """One beat. Whether another agent on another engine spoke for this range and is gone: announce it again."""
        other = await self._displaced_by(info.engine_id)
        beat = AgentHeartbeat.now(
            engine_id=info.engine_id,
            incarnation=self._incarnation,
            engine_version=info.version,
            at=datetime.now(UTC),
            displaced_by=other,
        )
        await self._bus.beat(self._key, beat.encode(), self._lasts)
        self._beaten = True
        if other:
            if not self._contested_beats:
                self._log.error("another agent speaks for this range", engine=info.engine_id, other=other)
            self._contested_beats = _ALONE_BEATS
        elif self._contested_beats:
            self._contested_beats -= 1
            return self._contested_beats == 0
        return False

    async def _displaced_by(self, engine_id: str) -> str:
        """The engine of another agent whose beat is where this one's was; empty if it is not."""
        if not self._beaten:
            return ""  # what is there now is of an earlier life
        (value,) = await self._bus.beats([self._key])
        found = AgentHeartbeat.read(value)
        if found is None or found.incarnation == self._incarnation or found.engine_id == engine_id:
            return ""
        return found.engine_id
