"""Pins: what deployments, ranges and plans reference, as digests that a collection keeps whatever the tags say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from events.bus import BusClient
from events.records import Key, load_values
from services.core.deployments.deployment import Deployment
from services.core.deployments.index import DeploymentKeys
from services.core.deployments.plans import PlanKeys
from services.core.images.read_model import ReadModelKeys
from services.core.mounts.pins import MountKeys
from services.core.ranges.ranges import RangeKeys

T = TypeVar("T", bound=msgspec.Struct)
_PAGE = 500


async def pinned_digests(bus: BusClient, prefix: str) -> frozenset[str]:
    """Digests of manifests and configs, without `sha256:`. Raises BusError: without pins nothing may be collected."""
    found: set[str] = set()
    deployments, ranges, plans = DeploymentKeys(prefix), RangeKeys(prefix), PlanKeys(prefix)
    for deployment in await _all(bus, await bus.members(deployments.open), deployments.record):
        found.update(_of_deployment(deployment))
    for desired in await _all(bus, await bus.members(ranges.known_index), ranges.wanted):
        found.update(image.image_id for image in desired.images.values())
    announced = await _all(bus, await bus.members(plans.all), plans.record)
    planned = {name for plan in announced for name in plan.images}
    for entry in await _all(bus, sorted(planned), ReadModelKeys(prefix).image):
        found.add(entry.manifest_digest)
    return frozenset(digest.rpartition(":")[2] for digest in found)


async def mounted_digests(bus: BusClient, prefix: str) -> frozenset[str]:
    """Digests of blobs behind layers that hosts mount, without `sha256:`: their bytes are kept. Raises BusError."""
    keys = MountKeys(prefix)
    hosts = await _all(bus, await bus.members(keys.hosts), keys.host)
    return frozenset(digest.rpartition(":")[2] for host in hosts for digest in host.digests)


def _of_deployment(deployment: Deployment) -> Iterator[str]:
    for image in deployment.images:
        if image.source is not None:
            yield image.source.rpartition("@")[2]
        if image.image_id is not None:
            yield image.image_id


async def _all(bus: BusClient, names: Sequence[str], key: Callable[[str], Key[T]]) -> list[T]:
    found: list[T] = []
    for start in range(0, len(names), _PAGE):
        found += await load_values(bus, [key(name) for name in names[start : start + _PAGE]])
    return found
