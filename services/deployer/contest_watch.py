"""Watch for contested ranges: samples heartbeats, keeps a record of each conflict, and wakes what waits for its end.

Every replica watches by itself (`services.core.ranges.contest` tells what is evidence); the records are shared, and
what is said of a conflict is said once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from events.bus import BusClient, IndexWrite, Outcome, RecordConflict
from events.messages import DeploymentAdvance, RangeContested
from events.records import Stored
from services.core.ranges.contest import ContestedRange, ContestKeys, HeartbeatHistory
from services.core.ranges.heartbeat import AgentHeartbeat
from services.deployer.context import DeployerContext
from services.deployer.outcomes import merged
from services.runtime.telemetry import get_logger

#: Half of an agent's beat, so that two agents in turn are both seen.
LOOK_SECONDS = 2.5
#: Evidence that is no newer than this does not change the record.
_FRESH_SECONDS = 5.0
_PAGE = 500


async def is_contested(bus: BusClient, prefix: str, range_id: str) -> bool:
    """Whether two agents speak for a range now. Raises BusError."""
    return (await ContestKeys(prefix).record(range_id).load(bus)).value is not None


class ContestWatch:
    """For one replica."""

    def __init__(self, context: DeployerContext) -> None:
        self._bus = context.bus
        self._streams = context.streams
        self._writer = context.writer
        self._clock = context.clock
        self._keys = ContestKeys(context.streams.prefix)
        self._seen: dict[str, HeartbeatHistory] = {}
        self._log = get_logger(role="deployer")

    async def look(self, range_ids: Sequence[str]) -> None:
        """One look at these ranges. Raises BusError."""
        for start in range(0, len(range_ids), _PAGE):
            page = range_ids[start : start + _PAGE]
            beats = await self._bus.beats([self._streams.alive(range_id) for range_id in page])
            for range_id, beat in zip(page, map(AgentHeartbeat.read, beats), strict=True):
                now = self._clock()
                history = self._seen.setdefault(range_id, HeartbeatHistory())
                engines = history.see(beat, now) if beat is not None else ()
                if engines:
                    await self._found(range_id, engines)
        for range_id in await self._bus.members(self._keys.index):
            await self._end(range_id)

    async def _found(self, range_id: str, engines: tuple[str, ...]) -> None:
        key, now = self._keys.record(range_id), self._clock()
        stored = await key.load(self._bus)
        before = stored.value
        if before is not None and (now - before.seen_at).total_seconds() < _FRESH_SECONDS:
            return
        contest = ContestedRange(
            range_id=range_id,
            engine_ids=tuple(sorted({*engines, *(before.engine_ids if before else ())}))[:8],
            since=before.since if before else now,
            seen_at=now,
        )
        noted = Outcome(
            records=(key.write(contest, expected=stored),),
            index=(IndexWrite(self._keys.index, range_id, now.timestamp()),),
        )
        if before is None:
            self._log.error("two agents speak for a range", range=range_id, engines=contest.engine_ids)
            noted = merged(noted, await self._told(contest, resolved=False))
        with suppress(RecordConflict):  # another replica saw it as well
            await self._bus.commit(noted)

    async def _end(self, range_id: str) -> None:
        key = self._keys.record(range_id)
        stored = await key.load(self._bus)
        if stored.value is not None and not stored.value.is_over(self._clock()):
            return
        gone = Outcome(index=(IndexWrite(self._keys.index, range_id, None),))
        if stored.value is not None:
            self._log.warning("one agent speaks for the range again", range=range_id)
            gone = merged(gone, self._deleted(stored), await self._told(stored.value, resolved=True))
        with suppress(RecordConflict):
            await self._bus.commit(gone)

    def _deleted(self, stored: Stored[ContestedRange]) -> Outcome:
        range_id = stored.value.range_id if stored.value else ""
        return Outcome(records=(self._keys.record(range_id).delete(expected=stored),))

    async def _told(self, contest: ContestedRange, *, resolved: bool) -> Outcome:
        """The event, and a nudge for each open deployment of the range."""
        now = self._clock()
        message = RangeContested(
            range_id=contest.range_id, engine_ids=contest.engine_ids, since=contest.since, resolved=resolved
        )
        said = self._writer.shared(
            self._streams.deployments,
            message,
            about=contest.range_id,
            now=now,
            key=f"contested/{contest.since.isoformat()}/{resolved}",
        )
        waiting = await self._bus.members(self._writer.keys.range(contest.range_id))
        nudges = tuple(
            self._writer.advance(DeploymentAdvance(deployment_id=deployment_id, why="reconcile"), now)
            for deployment_id in waiting
        )
        return Outcome(posts=(said, *nudges))
