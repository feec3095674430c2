"""Wanted against actual, at start and periodically: what got lost is said again.

A deployment whose timer should have fired a while ago gets another (`deployment.advance`); the look that follows goes
by facts and writes its index entries afresh. All replicas reconcile; what they say has the same id, so it is said once.
A range that is up and still lacks what it should have is given it again (`services.deploying.restoring`); what it has
and nobody wants is reported (`services.deploying.reporting`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime

import msgspec

from events.bus import BusError, IndexWrite, Outcome, RecordConflict
from events.messages import DeploymentAdvance
from events.task_group import TaskGroup
from services.core.admission import Ticket
from services.core.deployment import Deployment
from services.core.deployment_index import DeploymentKeys
from services.core.plans import PlanKeys
from services.core.ranges import KnownRange, RangeKeys, WantedImages
from services.deploying.facts import beat_engine
from services.deploying.outcomes import Desk
from services.deploying.reporting import Reporter
from services.deploying.restoring import Restorer
from services.finding_ranges import FIND_SECONDS, RangeFinder

#: A timer that is this late is lost, or its replica is very busy: another one does no harm.
LATE_SECONDS = 5.0
_RESTORE_SECONDS = 60.0
_REPORT_SECONDS = 60.0
_PAGE = 200


class Reconciler:
    """For one replica."""

    def __init__(self, desk: Desk, *, period_seconds: float) -> None:
        self._speaker = desk.speaker
        self._streams = desk.streams
        self._writer = desk.writer
        self._keys: DeploymentKeys = desk.writer.keys
        self._range_keys = RangeKeys(desk.streams.prefix)
        self._policy = desk.policy
        self._clock = desk.clock
        self._period = period_seconds
        self._restorer = Restorer(desk)
        self._reporter = Reporter(desk)
        self._finder = RangeFinder(speaker=desk.speaker, streams=desk.streams, clock=desk.clock)
        #: Those whose outboxes are listened to; it grows as ranges appear.
        self.ranges = self._finder.found

    async def run(self) -> None:
        """For ever."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._every(FIND_SECONDS, self._finder.find))
            tasks.create_task(self._every(self._period, self.reconcile))
            tasks.create_task(self._every(_RESTORE_SECONDS, self.restore))
            tasks.create_task(self._every(_REPORT_SECONDS, self._reporter.report))

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            with suppress(BusError, RecordConflict):  # Redis is away, or another replica was faster: next round
                await work()
            await asyncio.sleep(seconds)

    async def reconcile(self) -> None:
        """One round."""
        now = self._clock()
        await self._wake_overdue(now)
        await self._sweep_slots()
        await self._forget_old(now)

    async def restore(self) -> None:
        """Ranges that are up are given what they lost: while they ran, or before, should the first try have failed."""
        range_ids = await self._speaker.members(self._range_keys.known_index)
        for start in range(0, len(range_ids), _PAGE):
            page = range_ids[start : start + _PAGE]
            beats = await self._speaker.beats([self._streams.alive(range_id) for range_id in page])
            wanted = await self._speaker.load_many([self._range_keys.wanted(range_id) for range_id in page])
            for range_id, beat, record in zip(page, beats, wanted, strict=True):
                if beat is not None and record is not None:
                    with suppress(RecordConflict):  # something happened there, or another replica was faster
                        await self._restore(range_id, beat_engine(beat), record.value)

    async def _restore(self, range_id: str, engine_id: str | None, wanted: bytes) -> None:
        record = await self._speaker.load(self._range_keys.known(range_id))
        known = msgspec.json.decode(record.value, type=KnownRange) if record else None
        if known is None or engine_id not in (None, known.engine_id):
            return  # another engine has not announced itself yet
        lost = msgspec.json.decode(wanted, type=WantedImages).lost(known)
        outcome = await self._restorer.restore(known, lost, self._clock())
        if outcome.records:
            await self._speaker.commit(outcome)

    async def _wake_overdue(self, now: datetime) -> None:
        overdue = await self._speaker.members(self._keys.open, high=now.timestamp() - LATE_SECONDS)
        round_number = int(now.timestamp() // max(self._period, LATE_SECONDS))
        posts = tuple(
            self._writer.shared(
                self._streams.deployer,
                DeploymentAdvance(deployment_id=deployment_id, why="reconcile"),
                about=deployment_id,
                now=now,
                key=f"reconcile/{round_number}",
            )
            for deployment_id in overdue
        )
        if posts:
            await self._speaker.commit(Outcome(posts=posts))

    async def _sweep_slots(self) -> None:
        """Slots and places in the queue that no deployment's record knows of."""
        for key in (self._keys.active, self._keys.queue):
            tickets = [Ticket.parse(text) for text in await self._speaker.members(key)]
            idents = list(dict.fromkeys(ticket.deployment_id for ticket in tickets))
            records = await self._speaker.load_many([self._keys.record(ident) for ident in idents])
            known = {
                ident: msgspec.json.decode(record.value, type=Deployment)
                for ident, record in zip(idents, records, strict=True)
                if record is not None
            }
            for ticket in tickets:
                if not _holds(known.get(ticket.deployment_id), ticket, waiting=key == self._keys.queue):
                    await self._take_out(key, ticket, known.get(ticket.deployment_id))

    async def _take_out(self, key: str, ticket: Ticket, seen: Deployment | None) -> None:
        """Remove one ticket, unless the deployment moved on since it was looked at."""
        record = await self._speaker.load(self._keys.record(ticket.deployment_id))
        now_seen = msgspec.json.decode(record.value, type=Deployment) if record else None
        if now_seen == seen:
            await self._speaker.commit(Outcome(index=(IndexWrite(key, str(ticket), None),)))

    async def _forget_old(self, now: datetime) -> None:
        old = await self._speaker.members(self._keys.all, high=now.timestamp() - self._policy.keep_seconds)
        if old:
            records = await self._speaker.load_many([self._keys.record(ident) for ident in old])
            gone = [ident for ident, record in zip(old, records, strict=True) if record is None]
            await self._speaker.commit(Outcome(index=tuple(IndexWrite(self._keys.all, ident, None) for ident in gone)))
        asked = await self._speaker.members(self._range_keys.asked, high=now.timestamp() - self._policy.keep_seconds)
        if asked:
            writes = tuple(IndexWrite(self._range_keys.asked, range_id, None) for range_id in asked)
            await self._speaker.commit(Outcome(index=writes))
        plans = PlanKeys(self._streams.prefix)
        over = await self._speaker.members(plans.all, high=now.timestamp() - self._policy.keep_seconds)
        if over:
            await self._speaker.commit(Outcome(index=tuple(IndexWrite(plans.all, one, None) for one in over)))


def _holds(deployment: Deployment | None, ticket: Ticket, *, waiting: bool) -> bool:
    if deployment is None or not deployment.open or ticket.index >= len(deployment.images):
        return False
    image = deployment.images[ticket.index]
    return image.waits_for_slot if waiting else image.holds_slot
