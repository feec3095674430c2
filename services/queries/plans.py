"""Plans: which images are in the registry by now, and how far each range is.

The deployer's record of a plan names the deployments it made; those have records of their own. The result of a push is
read from the images' stream, and where that was trimmed, from the tracker's record.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from events.lease import Bus
from events.messages import DeploymentPlanned, Failure, ImagePushed, ImagePushFailed
from events.records import load_all, load_values
from events.streams import Streams
from services.core.deployments.index import DeploymentKeys
from services.core.deployments.plans import Plan, PlanKeys, plan_deployment_id, plan_state
from services.core.images.read_model import ReadModelKeys
from services.errors import NotFound
from services.queries.deployments import first_not_taken

#: Reference → why its last push failed, None if it did not fail.
Pushes = dict[str, Failure | None]
#: How far the clocks of a host's processes may be apart.
_CLOCKS_APART_SECONDS = 5.0


class PlanImageView(msgspec.Struct, frozen=True, kw_only=True):
    """`registry`: waiting, there, or failed with `error`."""

    reference: str
    registry: str
    error: Failure | None = None


class PlanRangeView(msgspec.Struct, frozen=True, kw_only=True):
    """How far the deployment to one range is: `ready` counts images. `away`: no deployment could be made yet."""

    range_id: str
    state: str
    deployment_id: str | None = None
    ready: int = 0


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """A plan: announced, under way, done, or incomplete."""

    plan_id: str
    state: str
    announced_at: datetime
    platform: str | None = None
    images: list[PlanImageView]
    ranges: list[PlanRangeView]


async def latest_plans(bus: Bus, streams: Streams, last: int) -> list[PlanView]:
    """The latest `last` plans, newest first."""
    keys = PlanKeys(streams.prefix)
    ids = (await bus.members(keys.all))[::-1][:last]
    plans = await load_values(bus, [keys.record(plan_id) for plan_id in ids])
    after = await first_not_taken(bus, streams)
    said = await _said(bus, streams, after) if after is not None else {}
    for plan in plans:
        said.pop(plan.plan_id, None)
    pushes = await _pushes(bus, streams, min(plan.announced_at for plan in plans)) if plans else {}
    taken = [await _row(bus, streams, plan, pushes) for plan in plans]
    return [*reversed(said.values()), *taken][:last]


async def one_plan(bus: Bus, streams: Streams, plan_id: str, *, pushes: Pushes | None = None) -> PlanView:
    """One of them; `pushes` are the results of pushes, where they are known. Raises NotFound."""
    plan = (await PlanKeys(streams.prefix).record(plan_id).load(bus)).value
    if plan is not None:
        known = await _pushes(bus, streams, plan.announced_at) if pushes is None else pushes
        return await _row(bus, streams, plan, known)
    after = await first_not_taken(bus, streams)
    said = await _said(bus, streams, after) if after is not None else {}
    if plan_id not in said:
        raise NotFound(f"there is no plan {plan_id!r}", hint="cyroid-images plans ls")
    return said[plan_id]


async def _row(bus: Bus, streams: Streams, plan: Plan, pushes: Pushes) -> PlanView:
    images = await _images(bus, streams, plan, pushes)
    ranges = await _ranges(bus, streams, plan)
    return PlanView(
        plan_id=plan.plan_id,
        state=plan_state((image.registry for image in images), (one.state for one in ranges)),
        announced_at=plan.announced_at,
        platform=plan.platform,
        images=images,
        ranges=ranges,
    )


async def _images(bus: Bus, streams: Streams, plan: Plan, pushes: Pushes) -> list[PlanImageView]:
    keys = ReadModelKeys(streams.prefix)
    stored = await load_all(bus, [keys.image(reference) for reference in plan.images])
    rows = []
    for reference, found in zip(plan.images, stored, strict=True):
        entry = found.value
        there = reference in pushes or (entry is not None and entry.pushed_at >= plan.announced_at)
        error = pushes.get(reference)
        state = "failed" if error is not None else "there" if there else "waiting"
        rows.append(PlanImageView(reference=reference, registry=state, error=error))
    return rows


async def _ranges(bus: Bus, streams: Streams, plan: Plan) -> list[PlanRangeView]:
    keys = DeploymentKeys(streams.prefix)
    made = {one: plan.deployments.get(one) or plan_deployment_id(plan.plan_id, one) for one in plan.range_ids}
    stored = await load_all(bus, [keys.record(ident) for ident in made.values()])
    found = {range_id: one.value for range_id, one in zip(made, stored, strict=True)}
    rows = []
    for range_id in plan.range_ids:
        deployment = found.get(range_id)
        rows.append(
            PlanRangeView(
                range_id=range_id,
                state=deployment.state if deployment else _without_record(range_id, plan),
                deployment_id=made[range_id] if deployment or range_id in plan.deployments else None,
                ready=sum(image.state == "ready" for image in deployment.images) if deployment else 0,
            )
        )
    return rows


def _without_record(range_id: str, plan: Plan) -> str:
    """The state of a deployment without a record: requested a moment ago, or forgotten long ago."""
    return "requested" if range_id in plan.deployments else "away"


async def _pushes(bus: Bus, streams: Streams, since: datetime) -> Pushes:
    """The last result of every push since then, by reference."""
    milliseconds = int((since.timestamp() - _CLOCKS_APART_SECONDS) * 1000)
    found: Pushes = {}
    async for entry in bus.tail((streams.images,), after=f"{max(milliseconds, 0)}-0", follow=False):
        message = entry.envelope.message if entry.envelope else None
        if isinstance(message, ImagePushed | ImagePushFailed):
            found[message.reference] = message.error if isinstance(message, ImagePushFailed) else None
    return found


async def _said(bus: Bus, streams: Streams, after: str) -> dict[str, PlanView]:
    """Plans according to the stream, the oldest first."""
    found: dict[str, PlanView] = {}
    async for entry in bus.tail((streams.deployments,), after=after, follow=False):
        if entry.envelope is not None and isinstance(entry.envelope.message, DeploymentPlanned):
            found.setdefault(entry.envelope.message.plan_id, _announced(entry.envelope.message, entry.envelope.time))
    return found


def _announced(plan: DeploymentPlanned, at: datetime) -> PlanView:
    return PlanView(
        plan_id=plan.plan_id,
        state="announced",
        announced_at=at,
        platform=plan.platform,
        images=[PlanImageView(reference=name, registry="waiting") for name in plan.images],
        ranges=[PlanRangeView(range_id=range_id, state="announced") for range_id in plan.range_ids],
    )
