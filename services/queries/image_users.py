"""Users of an image: open deployments, plans, and ranges that should have it. Checked before a tag is deleted."""

from __future__ import annotations

from events.bus import BusClient
from events.records import load_values
from events.streams import Streams
from services.core.deployments.index import DeploymentKeys
from services.core.deployments.plans import PlanKeys
from services.core.ranges.ranges import RangeKeys

_PAGE = 500
#: So many of them are named; there may be more.
_NAMED = 10


async def image_users(bus: BusClient, streams: Streams, reference: str) -> list[str]:
    """Users of an image: `deployment d-1`, `plan p-1`, `range range-1`, at most ten; empty if there are none.

    Raises BusError.
    """
    return (await all_image_users(bus, streams)).get(reference, [])[:_NAMED]


async def all_image_users(bus: BusClient, streams: Streams) -> dict[str, list[str]]:
    """Who needs each image that somebody needs, by its full name. Raises BusError."""
    found: dict[str, list[str]] = {}
    deployments, plans, ranges = DeploymentKeys(streams.prefix), PlanKeys(streams.prefix), RangeKeys(streams.prefix)
    for page in _pages(await bus.members(deployments.open)):
        for deployment in await load_values(bus, [deployments.record(one) for one in page]):
            for reference in {image.reference for image in deployment.images}:
                found.setdefault(reference, []).append(f"deployment {deployment.deployment_id}")
    for page in _pages(await bus.members(plans.all)):
        for plan in await load_values(bus, [plans.record(one) for one in page]):
            for reference in plan.images:
                found.setdefault(reference, []).append(f"plan {plan.plan_id}")
    for page in _pages(await bus.members(ranges.known_index)):
        for desired in await load_values(bus, [ranges.wanted(one) for one in page]):
            for reference in desired.images:
                found.setdefault(reference, []).append(f"range {desired.range_id}")
    return found


def _pages(names: list[str]) -> list[list[str]]:
    return [names[start : start + _PAGE] for start in range(0, len(names), _PAGE)]
