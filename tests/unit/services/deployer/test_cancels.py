"""What the deployer stops when a deployment is cancelled, among fakes, in faked time."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from events.messages import (
    DeploymentCancelRequested,
    Failure,
    TarRequested,
)
from services.core.deployments.offers import offer_key
from tests.simulation import SETTINGS, Cluster, eventually
from tests.unit.services.deployment_requests import APP, request

pytestmark = pytest.mark.faked_time


async def test_cancelling_ends_it_and_stops_the_agent() -> None:
    """A cancelled deployment ends cancelled, and its transfer is called off."""
    async with Cluster(settings=msgspec.structs.replace(SETTINGS, extractions_limit=1)) as world:
        world.host.add_image(APP, [b"app"])
        await world.mute("r0")
        await world.say(world.streams.deployments, request("d1"))
        await world.until(lambda found: found.images[0].state == "pulling", "d1")
        cancel = DeploymentCancelRequested(deployment_id="d1", reason="not needed")
        await world.say(world.streams.deployments, cancel)
        ended = await world.ended("d1", within_seconds=5)
        assert (ended.state, ended.reason) == ("cancelled", "not needed")
        said = [type(one).__name__ for one in await world.said(world.streams.inbox("r0"))]
        assert said == ["PullRequested", "TransferCancelled"]
        assert await world.bus.members(world.keys.active) == []


async def test_cancelling_takes_back_the_archive_that_was_offered() -> None:
    """Nobody can fetch it any more, and the tar server sees that nobody will."""
    async with Cluster() as world:
        world.host.add_image(APP, [b"app"])
        await world.mute("r0")
        await world.say(world.streams.deployments, request("d1"))
        await world.until(lambda found: found.images[0].state == "pulling", "d1")
        asked = TarRequested(transfer_id="d1.0.1", reason=Failure(code="stalled", message="no byte"))
        await world.say(world.streams.outbox("r0"), asked)
        await eventually(lambda: world.bus.load(offer_key("cyroid", "d1.0.1").name), within_seconds=10)
        await world.say(world.streams.deployments, DeploymentCancelRequested(deployment_id="d1"))
        assert (await world.ended("d1", within_seconds=5)).state == "cancelled"
        assert await world.bus.load(offer_key("cyroid", "d1.0.1").name) is None


async def test_a_cancel_that_overtakes_its_request_stops_it() -> None:
    """It is put aside until the request was taken up; one for a deployment that never comes is refused."""
    async with Cluster() as world:
        world.host.add_image(APP, [b"app"])
        await world.mute("r0")
        await world.say(world.streams.deployments, DeploymentCancelRequested(deployment_id="d1"))
        await world.say(world.streams.deployments, DeploymentCancelRequested(deployment_id="never"))
        await asyncio.sleep(2)
        await world.say(world.streams.deployments, request("d1"))
        assert (await world.ended("d1", within_seconds=30)).state == "cancelled"
        await eventually(lambda: world.bus.discover(world.streams.dead), within_seconds=60)
        entries = [entry async for entry in world.bus.tail([world.streams.dead], after="0", follow=False)]
        assert len(entries) == 1
