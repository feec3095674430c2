"""Which requests the deployer refuses, repeats or gives up, among fakes, in faked time."""

from __future__ import annotations

import pytest

from events.bus import Delivery
from events.envelope import Envelope
from events.messages import (
    DeploymentEnded,
    DeploymentFailed,
    DeploymentRequested,
    Failure,
    TransferProgress,
)
from services.deployer.role import Deployer
from tests.simulation import Cluster, eventually, loop_clock
from tests.unit.services.deployment_requests import APP, request

pytestmark = pytest.mark.faked_time


async def test_bad_references_are_refused_with_one_reason() -> None:
    """A request with a reference that is none fails as a whole, and says which."""
    async with Cluster() as world:
        await world.say(world.streams.deployments, request("d1", "r0", "app:1", "UPPER/Case:1"))
        ended = await world.ended("d1", within_seconds=10)
        assert ended.error is not None
        assert ended.error.code == "bad_reference"
        assert "UPPER/Case:1" in ended.error.message


async def test_too_many_images_are_refused() -> None:
    """Ten thousand images in one deployment are refused before anything is looked up."""
    async with Cluster() as world:
        await world.say(world.streams.deployments, request("d1", "r0", *(f"app:{n}" for n in range(10_000))))
        ended = await world.ended("d1", within_seconds=10)
        assert ended.error is not None
        assert "10000 images" in ended.error.message


async def test_the_same_request_gets_the_same_answer() -> None:
    """A known id with the same content repeats the answer; nothing is done twice."""
    async with Cluster() as world:
        world.host.add_image(APP, [b"app"])
        await world.say(world.streams.deployments, request("d1"))
        await world.ended("d1", within_seconds=10)
        await world.say(world.streams.deployments, request("d1"))

        async def both() -> list[DeploymentEnded] | None:
            told = await world.ends("d1")
            return told if len(told) == 2 else None

        first, second = await eventually(both, within_seconds=10)
        assert first == second
        assert world.engines["r0"].counts["pull"] == 1


async def test_another_request_under_a_known_id_is_refused() -> None:
    """A known id with other content is told as progress, and leaves the first deployment and the dead letters alone."""
    async with Cluster() as world:
        world.host.add_image(APP, [b"app"])
        await world.say(world.streams.deployments, request("d1"))
        before = await world.ended("d1", within_seconds=10)
        other = await world.say(world.streams.deployments, request("d1", "r1"))

        async def remark() -> Envelope | None:
            told = world.bus.tail([world.streams.progress], after="0", follow=False)
            envelopes = [entry.envelope async for entry in told if entry.envelope is not None]
            return next((one for one in envelopes if one.causation_id == other.id), None)

        told = await eventually(remark, within_seconds=10)
        assert isinstance(told.message, TransferProgress)
        assert "another request under the id d1" in str(told.message.note)
        assert await world.deployment("d1") == before
        assert len(await world.ends("d1")) == 1
        assert await world.said(world.streams.dead) == []


@pytest.mark.parametrize("known", [True, False])
async def test_a_request_that_was_given_up_has_one_outcome(known: bool) -> None:
    """A repeated request that crashed its workers ends nothing; one without a deployment has failed."""
    async with Cluster() as world:
        world.host.add_image(APP, [b"app"])
        await world.mute("r0")
        if known:
            await world.say(world.streams.deployments, request("d1"))
            await world.until(lambda found: found.images[0].state == "pulling", "d1")
        deployer = Deployer(
            bus=world.bus,
            registry=world.registry,
            streams=world.streams,
            source="deployer@given-up",
            tar_url="http://tar:7070",
            clock=loop_clock,
        )
        repeated = Envelope(message=request("d1"), source="operator", subject="r0")
        (subscription,) = deployer.subscriptions()
        registered = subscription.handlers.find(DeploymentRequested)
        assert registered is not None
        delivery: Delivery[DeploymentRequested] = Delivery(repeated, world.streams.deployments, "1-0")
        await world.bus.commit(registered.given_up(delivery, Failure(code="crashed", message="5 workers vanished")))
        await world.say(world.streams.deployments, request("d2", "r1"))
        await world.ended("d2", within_seconds=10)
        ends = await eventually(lambda: world.ends("d1"), within_seconds=10) if not known else await world.ends("d1")
        assert [(type(one), one.range_id) for one in ends] == ([] if known else [(DeploymentFailed, "r0")])
