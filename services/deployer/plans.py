"""Plans: images go to the registry, and as deployments of the lowest priority to the ranges that a plan names.

A range that is up gets its deployment at once, any other one when its agent comes up: it starts with what plans name.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from events.bus import NOTHING, Delivery, IndexWrite, Outcome, Post, RecordConflict, RecordWrite
from events.envelope import Envelope
from events.messages import DeploymentPlanned, DeploymentRequested, PushRequested
from events.records import load_all
from services.core.deployments.plans import Plan, PlanKeys, PlannedRange, plan_deployment_id, plan_refusal
from services.core.images.references import Reference
from services.core.ranges.ranges import RangeKeys
from services.deployer.context import DeployerContext
from services.errors import BadInput

#: How many messages or records of a plan one commit holds.
_TOGETHER = 100


class Plans:
    """Handles `deployment.planned`, and makes the deployments of ranges that were unavailable then."""

    def __init__(self, context: DeployerContext) -> None:
        self._bus = context.bus
        self._streams = context.streams
        self._writer = context.writer
        self._policy = context.policy
        self._clock = context.clock
        self._keys = PlanKeys(context.streams.prefix)
        self._range_keys = RangeKeys(context.streams.prefix)

    async def planned(self, delivery: Delivery[DeploymentPlanned]) -> Outcome:
        """Images go to the registry, and to those ranges that are up; the others are noted, and looked out for.

        All that is said has ids made from the plan's, so that a large plan can be committed in parts, and again.
        """
        plan, now, cause = delivery.message, self._clock(), delivery.envelope
        refusal = plan_refusal(plan, self._policy)
        if refusal is not None:
            raise BadInput(refusal)
        references = tuple(dict.fromkeys(str(Reference.parse(text)) for text in plan.images))
        stored = await self._keys.record(plan.plan_id).load(self._bus)
        before = stored.value
        if before is not None and not before.is_same(references, plan):
            text = f"plan {plan.plan_id} exists and announces something else: choose another id"
            raise BadInput(text, code="duplicate_plan")
        ranges = tuple(dict.fromkeys(plan.range_ids))
        beats = await self._bus.beats([self._streams.alive(range_id) for range_id in ranges]) if ranges else []
        up = [range_id for range_id, beat in zip(ranges, beats, strict=True) if beat is not None]
        earlier = before.deployments if before else {}
        taken = Plan(
            plan_id=plan.plan_id,
            images=references,
            range_ids=ranges,
            platform=plan.platform,
            announced_at=before.announced_at if before else cause.time,
            deployments={**earlier, **{one: plan_deployment_id(plan.plan_id, one) for one in up}},
        )
        posts = [self._push(taken, reference, now, cause) for reference in references]
        posts += [self._request(taken, range_id, now, cause) for range_id in up]
        notes = await self._noted(taken)
        awaited = [IndexWrite(self._range_keys.asked, one, now.timestamp()) for one in self._away(taken)]
        while len(posts) + len(notes) + len(awaited) > _TOGETHER:
            part = Outcome(tuple(posts[:_TOGETHER]), tuple(notes[:_TOGETHER]), tuple(awaited[:_TOGETHER]))
            await self._bus.commit(part)
            posts, notes, awaited = posts[_TOGETHER:], notes[_TOGETHER:], awaited[_TOGETHER:]
        write = self._keys.record(plan.plan_id).write(taken, expected=stored, expires_seconds=self._policy.keep_seconds)
        listed = IndexWrite(self._keys.all, plan.plan_id, taken.announced_at.timestamp())
        return Outcome(posts=tuple(posts), records=(*notes, write), index=(*awaited, listed))

    async def reach(self, range_ids: Sequence[str]) -> None:
        """Make the deployments of these ranges, which are up. Raises BusError."""
        found = await load_all(self._bus, [self._keys.planned(range_id) for range_id in range_ids])
        for range_id, stored in zip(range_ids, found, strict=True):
            if stored.value is not None:
                with suppress(RecordConflict):  # another replica was faster, or another plan names it now
                    await self._bus.commit(await self.reached(range_id, self._clock(), None))

    async def reached(self, range_id: str, now: datetime, cause: Envelope | None) -> Outcome:
        """The deployments of a range that came up, one for each plan that named it while it was unavailable."""
        key = self._keys.planned(range_id)
        stored = await key.load(self._bus)
        if stored.value is None:
            return NOTHING
        found = await load_all(self._bus, [self._keys.record(plan_id) for plan_id in stored.value.plan_ids])
        plans = {plan_id: one.value for plan_id, one in zip(stored.value.plan_ids, found, strict=True)}
        posts = tuple(self._request(plan, range_id, now, cause) for plan in plans.values() if plan is not None)
        if not posts:
            return NOTHING
        left = tuple(plan_id for plan_id, plan in plans.items() if plan is None)  # its record is still to be written
        note = PlannedRange(range_id=range_id, plan_ids=left)
        keep_seconds = self._policy.keep_seconds
        write = key.write(note, expected=stored, expires_seconds=keep_seconds) if left else key.delete(expected=stored)
        return Outcome(posts=posts, records=(write,))

    # ---- inside ----

    async def _noted(self, plan: Plan) -> list[RecordWrite]:
        """A note that the plan is still to reach them, for each range without a deployment."""
        away = self._away(plan)
        keys = [self._keys.planned(range_id) for range_id in away]
        writes = []
        for range_id, key, stored in zip(away, keys, await load_all(self._bus, keys), strict=True):
            before = stored.value.plan_ids if stored.value else ()
            noted = PlannedRange(range_id=range_id, plan_ids=tuple(dict.fromkeys((*before, plan.plan_id))))
            if noted != stored.value:
                writes.append(key.write(noted, expected=stored, expires_seconds=self._policy.keep_seconds))
        return writes

    def _away(self, plan: Plan) -> list[str]:
        """The ranges without a deployment."""
        return [range_id for range_id in plan.range_ids if range_id not in plan.deployments]

    def _push(self, plan: Plan, reference: str, now: datetime, cause: Envelope) -> Post:
        push = PushRequested(reference=reference, why="auto")
        return self._writer.shared(
            self._streams.images, push, about=reference, now=now, key=f"plan/{plan.plan_id}", **_caused(cause)
        )

    def _request(self, plan: Plan, range_id: str, now: datetime, cause: Envelope | None) -> Post:
        """A deployment of the lowest priority."""
        request = DeploymentRequested(
            deployment_id=plan_deployment_id(plan.plan_id, range_id),
            range_id=range_id,
            images=plan.images,
            platform=plan.platform,
            priority=0,
        )
        about, key = request.deployment_id, f"plan/{plan.plan_id}"
        return self._writer.shared(self._streams.deployments, request, about=about, now=now, key=key, **_caused(cause))


def _caused(cause: Envelope | None) -> dict[str, str]:
    if cause is None:
        return {}
    return {
        "correlation_id": cause.correlation_id,
        "causation_id": cause.id,
        "traceparent": cause.traceparent or "",
    }
