"""What the deployer does with plans: preheating registry and ranges, among fakes, in faked time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from events.bus import Outcome
from events.messages import (
    DeploymentPlanned,
    DeploymentRequested,
)
from events.records import ABSENT
from services.core.deployments.deployment import Policy
from services.core.deployments.plans import PlanKeys, PlannedRange
from services.queries.plans import PlanImageView, PlanView, latest_plans, one_plan
from tests.simulation import Cluster, eventually
from tests.unit.services.deployment_requests import APP, BASE, request

pytestmark = pytest.mark.faked_time


async def test_a_plan_preheats_the_registry_and_the_ranges_that_are_up() -> None:
    """Planned images are in the registry and in the live range before anybody asks for them."""
    async with Cluster() as world:
        image = world.host.add_image(APP, [BASE, b"app"])
        plan = DeploymentPlanned(plan_id="p1", images=("app:1",), range_ids=("r0", "nobody"))
        await eventually(lambda: world.bus.members("cyroid:index:known"), within_seconds=10)
        await world.say(world.streams.deployments, plan)
        found = await eventually(lambda: world.engines["r0"].inspect(APP), within_seconds=10)
        assert found.image_id == image.image_id
        await world.say(world.streams.deployments, request("d1"))
        assert (await world.ended("d1", within_seconds=10)).images[0].how == "present"


async def test_a_plan_reaches_ranges_that_come_up_later() -> None:
    """Which range has all of it, and which is away; that one starts with what plans named meanwhile."""
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"app"])
        await world.processes["agent-r1"].kill()
        await eventually(lambda: world.bus.members("cyroid:index:known"), within_seconds=10)
        for plan_id in ("p0", "p1"):
            plan = DeploymentPlanned(plan_id=plan_id, images=("app:1",), range_ids=("r0", "r1"))
            await world.say(world.streams.deployments, plan)

        async def settled() -> PlanView | None:
            row = await one_plan(world.bus, world.streams, "p1")
            return row if row.state == "incomplete" else None

        row = await eventually(settled, within_seconds=10)
        assert row.images == [PlanImageView(reference=APP, registry="there")]
        assert {one.range_id: (one.state, one.ready, bool(one.deployment_id)) for one in row.ranges} == {
            "r0": ("succeeded", 1, True),
            "r1": ("away", 0, False),
        }
        world.processes["agent-r1"].start()

        async def done() -> bool:
            return {row.state for row in await latest_plans(world.bus, world.streams, 10)} == {"done"}

        assert await eventually(done, within_seconds=20)
        assert await world.engines["r1"].inspect(APP) is not None
        assert await world.bus.load(PlanKeys("cyroid").planned("r1").name) is None
        asked = [one for one in await world.said(world.streams.deployments) if isinstance(one, DeploymentRequested)]
        assert sorted(one.range_id for one in asked) == ["r0", "r0", "r1", "r1"]
        assert [row.plan_id for row in await latest_plans(world.bus, world.streams, 10)] == ["p1", "p0"]


async def test_a_plan_reaches_a_range_whose_word_came_too_early() -> None:
    """It was up before the note of it was there, with no heartbeat at that moment: the reconciler makes it good."""
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"app"])
        await eventually(lambda: world.bus.members("cyroid:index:known"), within_seconds=10)
        await world.say(world.streams.deployments, DeploymentPlanned(plan_id="p1", images=("app:1",)))
        await eventually(lambda: world.bus.load("cyroid:plan:p1"), within_seconds=10)
        note = PlannedRange(range_id="r0", plan_ids=("p1",))
        await world.bus.commit(Outcome(records=(PlanKeys("cyroid").planned("r0").write(note, expected=ABSENT),)))
        found = await eventually(lambda: world.engines["r0"].inspect(APP), within_seconds=90)
        assert found.references == (APP,)


async def test_a_plan_is_remembered_as_long_as_deployments_are() -> None:
    """Then it is in no list any more."""
    async with Cluster(limits=Policy(keep_seconds=100)) as world:
        await world.say(world.streams.deployments, DeploymentPlanned(plan_id="p1", images=("app:1",)))
        index = PlanKeys("cyroid").all
        assert await eventually(lambda: world.bus.members(index), within_seconds=10) == ["p1"]

        async def gone() -> bool:
            return await world.bus.members(index) == [] and await world.bus.load("cyroid:plan:p1") is None

        assert await eventually(gone, within_seconds=400)


async def test_another_plan_under_a_known_id_is_refused() -> None:
    """The first one stays as it is; the second is a dead letter."""
    async with Cluster() as world:
        for reference in ("app:1", "app:2"):
            await world.say(world.streams.deployments, DeploymentPlanned(plan_id="p1", images=(reference,)))
            await eventually(lambda: world.bus.load("cyroid:plan:p1"), within_seconds=10)
        await eventually(lambda: world.bus.discover(world.streams.dead), within_seconds=10)
        row = await one_plan(world.bus, world.streams, "p1")
        assert [image.reference for image in row.images] == [APP]


async def test_a_large_plan_is_carried_out_in_parts_and_once() -> None:
    """More than one commit holds, told twice by mistake: every range that is up is asked for once."""
    async with Cluster() as world:
        world.host.add_image(APP, [BASE])
        range_ids = tuple(f"x{number}" for number in range(250))
        for range_id in range_ids:
            await world.bus.beat(world.streams.alive(range_id), b"{}", 86400.0)
        plan = DeploymentPlanned(plan_id="p1", images=("app:1",), range_ids=range_ids)
        await world.say(world.streams.deployments, plan)
        await world.say(world.streams.deployments, plan)

        async def asked() -> list[str]:
            told = await world.said(world.streams.deployments)
            return [one.range_id for one in told if isinstance(one, DeploymentRequested)]

        await eventually(lambda: all_there(asked, len(range_ids)), within_seconds=30)
        await asyncio.sleep(5)
        assert sorted(await asked()) == sorted(range_ids)


async def all_there(asked: Callable[[], Awaitable[list[str]]], number: int) -> bool:
    """Whether so many were asked for."""
    return len(await asked()) >= number


async def test_a_plan_has_a_limit() -> None:
    """As many images as one deployment may have."""
    async with Cluster(limits=Policy(images=2)) as world:
        plan = DeploymentPlanned(plan_id="p1", images=("a:1", "b:1", "c:1"))
        await world.say(world.streams.deployments, plan)
        await eventually(lambda: world.bus.discover(world.streams.dead), within_seconds=10)
        assert await world.said(world.streams.images) == []
