"""Reports of what nobody wants, over the bus in memory."""

from datetime import UTC, datetime, timedelta

import pytest

from events.bus import IndexWrite, Outcome
from events.messages import PresentImage
from events.records import ANY
from services.core.deployments.deployment import Deployment
from services.core.deployments.index import DeploymentKeys, index_writes
from services.core.deployments.plans import Plan, PlanKeys
from services.core.images.read_model import RangeInventory, ReadModelKeys, RegistryEntry
from services.core.ranges.ranges import DesiredImage, DesiredImages, RangeKeys
from services.errors import NotFound
from services.queries.unreferenced import in_range, in_ranges, in_registry
from tests.unit.services.twins import STREAMS, Cluster

THEN = datetime(2026, 1, 2, tzinfo=UTC)
RANGES, HELD = RangeKeys(STREAMS.prefix), ReadModelKeys(STREAMS.prefix)
DEPLOYMENTS, PLANS = DeploymentKeys(STREAMS.prefix), PlanKeys(STREAMS.prefix)


def name(short: str) -> str:
    return f"docker.io/library/{short}:1"


def content(short: str) -> str:
    return f"sha256:{short.encode().hex():0<64}"


async def has(world: Cluster, range_id: str, *shorts: str) -> None:
    """Its agent said so."""
    images = [PresentImage(references=(name(one),), diff_ids=(), image_id=content(one)) for one in shorts]
    holdings = RangeInventory.announced(range_id, images, THEN)
    write = HELD.holdings(range_id).write(holdings, expected=ANY)
    await world.bus.commit(Outcome(records=(write,), index=(IndexWrite(RANGES.known_index, range_id, 1.0),)))


async def should_have(world: Cluster, range_id: str, *shorts: str) -> None:
    """That was deployed to it."""
    images = {
        name(one): DesiredImage(reference=name(one), image_id=content(one), diff_ids=(), deployment_id="d")
        for one in shorts
    }
    write = RANGES.wanted(range_id).write(DesiredImages(range_id=range_id, images=images), expected=ANY)
    await world.bus.commit(Outcome(records=(write,)))


async def is_asked_for(world: Cluster, range_id: str, short: str) -> None:
    """A deployment that is open."""
    deployment = Deployment(
        deployment_id=f"of-{range_id}",
        range_id=range_id,
        state="running",
        asked=(name(short),),
        images=(),
        requested_at=THEN,
        correlation_id="c",
    )
    write = DEPLOYMENTS.record(deployment.deployment_id).write(deployment, expected=ANY)
    await world.bus.commit(Outcome(records=(write,), index=index_writes(DEPLOYMENTS, None, deployment)))


async def test_each_range_is_compared_with_what_it_should_have() -> None:
    """One range's deployments are nothing to another; a range that is away is told by its last word."""
    world = Cluster()
    await world.bus.beat(STREAMS.alive("r1"), b"{}", 60)
    await has(world, "r1", "web", "toy", "soon")
    await has(world, "r2", "web")
    await should_have(world, "r1", "web")
    await is_asked_for(world, "r1", "soon")
    found = await in_ranges(world.bus, STREAMS)
    assert [(one.range_id, one.agent, one.as_of, [image.references for image in one.images]) for one in found] == [
        ("r1", "alive", THEN, [(name("toy"),)]),
        ("r2", "away", THEN, [(name("web"),)]),
    ]
    assert (await in_range(world.bus, STREAMS, "r2")) == found[1]
    with pytest.raises(NotFound, match="never reported its images"):
        await in_range(world.bus, STREAMS, "r3")


async def test_more_ranges_than_are_read_at_once_are_all_told() -> None:
    """Records are read by the hundred."""
    world = Cluster()
    for number in range(201):
        await has(world, f"r{number}", "toy")
    assert len(await in_ranges(world.bus, STREAMS)) == 201


async def test_the_registrys_images_are_for_ranges_and_plans() -> None:
    """What is in a range, meant for one, asked for or planned is wanted there; the rest is told."""
    world = Cluster()
    for place, short in enumerate(("held", "meant", "asked", "planned", "renamed", "idle")):
        entry = RegistryEntry(
            reference=name(short),
            repository="r",
            tag="1",
            manifest_digest=content(short),
            image_id=content("held" if short == "renamed" else short),
            layers=1,
            size_bytes=1,
            pushed_at=THEN + timedelta(seconds=place),
        )
        write = HELD.image(entry.reference).write(entry, expected=ANY)
        await world.bus.commit(
            Outcome(records=(write,), index=(IndexWrite(HELD.images, entry.reference, float(place)),))
        )
    await has(world, "r1", "held")
    await should_have(world, "r1", "meant")
    await is_asked_for(world, "r1", "asked")
    plan = Plan(plan_id="p1", images=(name("planned"),), announced_at=THEN)
    write = PLANS.record("p1").write(plan, expected=ANY)
    await world.bus.commit(Outcome(records=(write,), index=(IndexWrite(PLANS.all, "p1", 1.0),)))
    assert [entry.reference for entry in await in_registry(world.bus, STREAMS)] == [name("idle")]
