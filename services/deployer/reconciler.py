"""Reconciler: compares desired and actual state, at start and periodically, and repairs the difference.

A deployment whose timer should have fired a while ago gets another (`deployment.advance`); the look that follows goes
by facts and writes its index entries afresh. All replicas reconcile; what they say has the same id, so it is said once.
A range that is up and still lacks what it should have is given it again (`services.deployer.restorer`); what it has
and nothing refers to is reported (`services.deployer.unreferenced`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime

from events.bus import BusError, IndexWrite, Outcome, RecordConflict
from events.messages import DeploymentAdvance
from events.records import load_all
from events.task_group import TaskGroup
from services.core.deployments.admission import Ticket
from services.core.deployments.deployment import Deployment
from services.core.deployments.index import DeploymentKeys
from services.core.deployments.plans import PlanKeys
from services.core.ranges.heartbeat import engine_of
from services.core.ranges.ranges import DesiredImages, RangeKeys
from services.deployer.contest_watch import LOOK_SECONDS, ContestWatch, is_contested
from services.deployer.context import DeployerContext
from services.deployer.plans import Plans
from services.deployer.restorer import Restorer
from services.deployer.unreferenced import UnreferencedReporter
from services.queries.ranges import FIND_SECONDS, RangeFinder

#: A timer that is this late is lost, or its replica is very busy: another one does no harm.
LATE_SECONDS = 5.0
_RESTORE_SECONDS = 60.0
_REPORT_SECONDS = 60.0
_PAGE = 200


class Reconciler:
    """The reconciler of one replica."""

    def __init__(self, context: DeployerContext, plans: Plans, *, period_seconds: float) -> None:
        self._plans = plans
        self._bus = context.bus
        self._streams = context.streams
        self._writer = context.writer
        self._keys: DeploymentKeys = context.writer.keys
        self._range_keys = RangeKeys(context.streams.prefix)
        self._policy = context.policy
        self._clock = context.clock
        self._period = period_seconds
        self._restorer = Restorer(context)
        self._reporter = UnreferencedReporter(context)
        self._finder = RangeFinder(bus=context.bus, streams=context.streams, clock=context.clock)
        self._contests = ContestWatch(context)
        #: Those whose outboxes are listened to; it grows as ranges appear.
        self.ranges = self._finder.found

    async def run(self) -> None:
        """Reconcile periodically until cancelled."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._every(FIND_SECONDS, self._finder.find))
            tasks.create_task(self._every(self._period, self.reconcile))
            tasks.create_task(self._every(LOOK_SECONDS, self.watch_contests))
            tasks.create_task(self._every(_RESTORE_SECONDS, self.restore))
            tasks.create_task(self._every(_REPORT_SECONDS, self._reporter.report))

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            with suppress(BusError, RecordConflict):  # Redis is unavailable, or another replica was faster: next round
                await work()
            await asyncio.sleep(seconds)

    async def reconcile(self) -> None:
        """One round over all open deployments and ranges."""
        now = self._clock()
        await self._wake_overdue(now)
        await self._sweep_slots()
        await self._forget_old(now)

    async def watch_contests(self) -> None:
        """Detect ranges for which two agents publish, and those for which only one is left."""
        await self._contests.look(tuple(self.ranges))

    async def restore(self) -> None:
        """Restore images that ranges have lost, on ranges that are up; and give them what plans name for them."""
        range_ids = await self._bus.members(self._range_keys.known_index)
        for start in range(0, len(range_ids), _PAGE):
            page = range_ids[start : start + _PAGE]
            beats = await self._bus.beats([self._streams.alive(range_id) for range_id in page])
            wanted = await load_all(self._bus, [self._range_keys.wanted(range_id) for range_id in page])
            await self._plans.reach([one for one, beat in zip(page, beats, strict=True) if beat is not None])
            for range_id, beat, stored in zip(page, beats, wanted, strict=True):
                if beat is not None and stored.value is not None:
                    with suppress(RecordConflict):  # something happened there, or another replica was faster
                        await self._restore(range_id, engine_of(beat), stored.value)

    async def _restore(self, range_id: str, engine_id: str | None, wanted: DesiredImages) -> None:
        known = (await self._range_keys.known(range_id).load(self._bus)).value
        if known is None or engine_id not in (None, known.engine_id):
            return  # another engine has not announced itself yet
        if await is_contested(self._bus, self._streams.prefix, range_id):
            return  # what is missing may be on the other engine
        outcome = await self._restorer.restore(known, wanted.lost(known), self._clock())
        if outcome.records:
            await self._bus.commit(outcome)

    async def _wake_overdue(self, now: datetime) -> None:
        overdue = await self._bus.members(self._keys.open, high=now.timestamp() - LATE_SECONDS)
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
            await self._bus.commit(Outcome(posts=posts))

    async def _sweep_slots(self) -> None:
        """Remove slots and places in the queue that no deployment's record names."""
        for key in (self._keys.active, self._keys.queue):
            tickets = [Ticket.parse(text) for text in await self._bus.members(key)]
            idents = list(dict.fromkeys(ticket.deployment_id for ticket in tickets))
            stored = await load_all(self._bus, [self._keys.record(ident) for ident in idents])
            known = {ident: found.value for ident, found in zip(idents, stored, strict=True)}
            for ticket in tickets:
                if not _holds(known[ticket.deployment_id], ticket, waiting=key == self._keys.queue):
                    await self._take_out(key, ticket, known[ticket.deployment_id])

    async def _take_out(self, key: str, ticket: Ticket, seen: Deployment | None) -> None:
        """Remove one ticket, unless the deployment moved on since it was read."""
        now_seen = await self._keys.record(ticket.deployment_id).load(self._bus)
        if now_seen.value == seen:
            await self._bus.commit(Outcome(index=(IndexWrite(key, str(ticket), None),)))

    async def _forget_old(self, now: datetime) -> None:
        old = await self._bus.members(self._keys.all, high=now.timestamp() - self._policy.keep_seconds)
        if old:
            stored = await load_all(self._bus, [self._keys.record(ident) for ident in old])
            gone = [ident for ident, found in zip(old, stored, strict=True) if found.value is None]
            await self._bus.commit(Outcome(index=tuple(IndexWrite(self._keys.all, ident, None) for ident in gone)))
        asked = await self._bus.members(self._range_keys.asked, high=now.timestamp() - self._policy.keep_seconds)
        if asked:
            writes = tuple(IndexWrite(self._range_keys.asked, range_id, None) for range_id in asked)
            await self._bus.commit(Outcome(index=writes))
        plans = PlanKeys(self._streams.prefix)
        over = await self._bus.members(plans.all, high=now.timestamp() - self._policy.keep_seconds)
        if over:
            await self._bus.commit(Outcome(index=tuple(IndexWrite(plans.all, one, None) for one in over)))


def _holds(deployment: Deployment | None, ticket: Ticket, *, waiting: bool) -> bool:
    if deployment is None or not deployment.open or ticket.index >= len(deployment.images):
        return False
    image = deployment.images[ticket.index]
    return image.waits_for_slot if waiting else image.holds_slot
