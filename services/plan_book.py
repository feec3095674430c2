"""Plans as people see them: which images are in the registry by now, and how far each range is.

The deployer's record of a plan names the deployments it made; those have records of their own. What became of a push is
read from the images' stream, and where that was trimmed, from the tracker's record.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from events.lease import Bus
from events.messages import DeploymentPlanned, Failure, ImagePushed, ImagePushFailed
from events.streams import Streams
from services.core.deployment import Deployment
from services.core.deployment_index import DeploymentKeys
from services.core.holdings import HoldingKeys, RegistryEntry
from services.core.plans import Plan, PlanKeys, plan_state
from services.deployment_book import first_not_taken
from services.errors import NotFound

Row = dict[str, Any]
#: Reference → why its last push failed, None if it did not fail.
Pushes = dict[str, Failure | None]
#: How far the clocks of a host's processes may be apart.
_CLOCKS_APART_SECONDS = 5.0


async def latest_plans(bus: Bus, streams: Streams, last: int) -> list[Row]:
    """The latest `last` plans, newest first."""
    keys = PlanKeys(streams.prefix)
    ids = (await bus.members(keys.all))[::-1][:last]
    records = await bus.load_many([keys.record(plan_id) for plan_id in ids]) if ids else []
    plans = [msgspec.json.decode(record.value, type=Plan) for record in records if record is not None]
    after = await first_not_taken(bus, streams)
    said = await _said(bus, streams, after) if after is not None else {}
    for plan in plans:
        said.pop(plan.plan_id, None)
    pushes = await _pushes(bus, streams, min(plan.announced_at for plan in plans)) if plans else {}
    taken = [await _row(bus, streams, plan, pushes) for plan in plans]
    return [*reversed(said.values()), *taken][:last]


async def one_plan(bus: Bus, streams: Streams, plan_id: str) -> Row:
    """One of them. Raises NotFound."""
    record = await bus.load(PlanKeys(streams.prefix).record(plan_id))
    if record is not None:
        plan = msgspec.json.decode(record.value, type=Plan)
        return await _row(bus, streams, plan, await _pushes(bus, streams, plan.announced_at))
    said = await _said(bus, streams, "0")
    if plan_id not in said:
        raise NotFound(f"there is no plan {plan_id!r}; `cyroid-images plans ls` lists those there are")
    return said[plan_id]


async def _row(bus: Bus, streams: Streams, plan: Plan, pushes: Pushes) -> Row:
    images = await _images(bus, streams, plan, pushes)
    ranges = await _ranges(bus, streams, plan)
    return {
        "plan_id": plan.plan_id,
        "state": plan_state((image["registry"] for image in images), (one["state"] for one in ranges)),
        "announced_at": plan.announced_at,
        "platform": plan.platform,
        "images": images,
        "ranges": ranges,
    }


async def _images(bus: Bus, streams: Streams, plan: Plan, pushes: Pushes) -> list[Row]:
    keys = HoldingKeys(streams.prefix)
    records = await bus.load_many([keys.image(reference) for reference in plan.images])
    rows = []
    for reference, record in zip(plan.images, records, strict=True):
        entry = msgspec.json.decode(record.value, type=RegistryEntry) if record else None
        there = reference in pushes or (entry is not None and entry.pushed_at >= plan.announced_at)
        error = pushes.get(reference)
        state = "failed" if error is not None else "there" if there else "waiting"
        rows.append({"reference": reference, "registry": state, "error": error})
    return rows


async def _ranges(bus: Bus, streams: Streams, plan: Plan) -> list[Row]:
    keys = DeploymentKeys(streams.prefix)
    made = plan.deployments
    records = await bus.load_many([keys.record(ident) for ident in made.values()]) if made else []
    found = dict(zip(made, records, strict=True))
    rows = []
    for range_id in plan.range_ids:
        record = found.get(range_id)
        deployment = msgspec.json.decode(record.value, type=Deployment) if record else None
        rows.append(
            {
                "range_id": range_id,
                "state": deployment.state if deployment else _without_record(range_id, plan),
                "deployment_id": made.get(range_id),
                "ready": sum(image.state == "ready" for image in deployment.images) if deployment else 0,
            }
        )
    return rows


def _without_record(range_id: str, plan: Plan) -> str:
    """A deployment that was asked for a moment ago has no record yet, one of last month none any more."""
    return "requested" if range_id in plan.deployments else "away"


async def _pushes(bus: Bus, streams: Streams, since: datetime) -> Pushes:
    """What became last of every image that was pushed since then."""
    milliseconds = int((since.timestamp() - _CLOCKS_APART_SECONDS) * 1000)
    found: Pushes = {}
    async for entry in bus.tail((streams.images,), after=f"{max(milliseconds, 0)}-0", follow=False):
        message = entry.envelope.message if entry.envelope else None
        if isinstance(message, ImagePushed | ImagePushFailed):
            found[message.reference] = message.error if isinstance(message, ImagePushFailed) else None
    return found


async def _said(bus: Bus, streams: Streams, after: str) -> dict[str, Row]:
    """Plans as the stream tells them, the oldest first."""
    found: dict[str, Row] = {}
    async for entry in bus.tail((streams.deployments,), after=after, follow=False):
        if entry.envelope is not None and isinstance(entry.envelope.message, DeploymentPlanned):
            found.setdefault(entry.envelope.message.plan_id, _announced(entry.envelope.message, entry.envelope.time))
    return found


def _announced(plan: DeploymentPlanned, at: datetime) -> Row:
    return {
        "plan_id": plan.plan_id,
        "state": "announced",
        "announced_at": at,
        "platform": plan.platform,
        "images": [{"reference": name, "registry": "waiting", "error": None} for name in plan.images],
        "ranges": [
            {"range_id": range_id, "state": "announced", "deployment_id": None, "ready": 0}
            for range_id in plan.range_ids
        ],
    }
