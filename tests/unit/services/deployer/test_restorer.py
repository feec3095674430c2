"""What the deployer brings back to a range that lost it, among fakes, in faked time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from events.envelope import Envelope
from events.messages import AgentStarted, ImageReady, ImagesChanged
from services.adapters.memory_engine import Fault
from services.core.images.read_model import RangeInventory, ReadModelKeys
from services.core.ranges.ranges import DesiredImages, KnownRange
from tests.simulation import SETTINGS, Cluster, eventually, loop_clock
from tests.unit.services.deployment_requests import APP, BASE, request

pytestmark = pytest.mark.faked_time


async def test_a_range_recreated_empty_gets_its_content_again() -> None:
    """A new engine under a known range is told again what it should have, as the content that was deployed."""
    async with Cluster() as world:
        image = world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request("d1"))
        await world.ended("d1", within_seconds=10)
        await world.processes["agent-r0"].kill()
        world.engines["r0"] = world.new_engine("r0", 2)
        world.processes["agent-r0"].start()
        found = await eventually(lambda: world.engines["r0"].inspect(APP), within_seconds=10)
        assert found.image_id == image.image_id


async def test_a_restore_that_failed_is_made_again_when_the_agent_is_back() -> None:
    """Away for longer than the grace, then there again with the same engine: what is missing is brought."""
    async with Cluster(settings=msgspec.structs.replace(SETTINGS, agent_grace_seconds=20.0)) as world:
        image = world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request("d1"))
        await world.ended("d1", within_seconds=10)
        agent = world.processes["agent-r0"]
        await agent.kill()
        world.engines["r0"] = engine = world.new_engine("r0", 2)
        engine.away = True
        await world.mute("r0")
        await world.say(world.streams.outbox("r0"), started("r0", "r0.2"), subject="r0")
        restore = await eventually(lambda: restoring(world), within_seconds=20)
        await world.bus.beat(world.streams.alive("r0"), b"{}", 0.1)
        assert (await world.ended(restore, within_seconds=300)).state == "failed"
        engine.away = False
        agent.start()
        found = await eventually(lambda: engine.inspect(APP), within_seconds=10)
        assert found.image_id == image.image_id


async def test_a_restore_that_failed_is_made_again_while_the_agent_is_up() -> None:
    """The image could be had nowhere: once it can, the range gets it without another word of its agent."""
    async with Cluster() as world:
        image = world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request("d1"))
        await world.ended("d1", within_seconds=10)
        await world.processes["agent-r0"].kill()
        world.engines["r0"] = engine = world.new_engine("r0", 2)
        world.host.away = world.registry.away = True
        world.processes["agent-r0"].start()
        restore = await eventually(lambda: restoring(world), within_seconds=20)
        assert (await world.ended(restore, within_seconds=300)).state == "failed"
        world.host.away = world.registry.away = False
        found = await eventually(lambda: engine.inspect(APP), within_seconds=300)
        assert found.image_id == image.image_id


async def test_an_agent_that_comes_up_is_not_given_what_a_deployment_brings_or_somebody_named() -> None:
    """Another image under a wanted name stays, and nothing is restored to a range that has all."""
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request("d1"))
        await world.ended("d1", within_seconds=10)
        await world.processes["agent-r0"].kill()
        other = world.engines["r0"].add_image(APP, [b"a student's own"])
        world.processes["agent-r0"].start()
        await world.say(world.streams.deployments, request("d2", "r1"))
        await world.ended("d2", within_seconds=10)
        await asyncio.sleep(300)
        found = await world.engines["r0"].inspect(APP)
        assert found is not None
        assert found.image_id == other.image_id
        assert await restoring(world) is None


async def test_what_a_range_loses_while_its_agent_runs_is_brought_back() -> None:
    """Somebody removed the image on the range's engine: it is noticed at the next look, and given again as it was."""
    async with Cluster() as world:
        image = world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request("d1"))
        await world.ended("d1", within_seconds=10)
        await asyncio.sleep(70)
        assert await restoring(world) is None
        await world.engines["r0"].untag(APP)
        found = await eventually(lambda: world.engines["r0"].inspect(APP), within_seconds=200)
        assert found.image_id == image.image_id


async def test_a_range_is_given_again_what_arrived_last_and_not_what_ended_last() -> None:
    """A deployment of older content that ends late, for another image's sake, does not make a recreated range older."""
    slow = "docker.io/library/slow:1"
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"old"])
        world.host.add_image(slow, [b"slow"])
        gate = asyncio.Event()
        world.engines["r0"].faults["pull"] = Fault(until=gate)
        await world.say(world.streams.deployments, request("d0", "r0", "slow:1"))
        await world.until(lambda found: found.images[0].state == "pulling", "d0")
        await world.say(world.streams.deployments, request("d1", "r0", "app:1", "slow:1"))
        await world.until(lambda found: found.images[0].state == "ready", "d1")
        new = world.host.add_image(APP, [BASE, b"new"])
        await world.say(world.streams.deployments, request("d2", "r0", "app:1"))
        assert (await world.ended("d2", within_seconds=10)).state == "succeeded"
        gate.set()
        assert (await world.ended("d1", within_seconds=30)).state == "succeeded"
        record = await world.bus.load(world.range_keys.wanted("r0").name)
        assert record is not None
        assert msgspec.json.decode(record.value, type=DesiredImages).images[APP].image_id == new.image_id
        record = await eventually(
            lambda: world.bus.load(ReadModelKeys("cyroid").holdings("r0").name), within_seconds=10
        )
        assert msgspec.json.decode(record.value, type=RangeInventory).images[APP] == new.image_id


async def restoring(world: Cluster) -> str | None:
    """A restoring deployment's id."""
    idents = await world.bus.members(world.keys.all)
    return next((ident for ident in idents if ident.startswith("restore-")), None)


def started(range_id: str, engine_id: str) -> AgentStarted:
    return AgentStarted(
        range_id=range_id, engine_id=engine_id, engine_version="26.1.5", store="classic", platform="linux/amd64"
    )


async def test_a_range_that_speaks_from_the_future_does_not_outrank_what_comes_later() -> None:
    """Its words count as said now: newer content is what the range should have, and the next range is heard."""
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"old"])
        await world.mute("r0")
        await world.say(world.streams.deployments, request("d1"))
        pulling = await world.until(lambda found: found.images[0].state == "pulling", "d1")
        future = loop_clock() + timedelta(days=36500)
        lies = (
            AgentStarted(
                range_id="r0", engine_id="r0.1", engine_version="26.1.5", store="classic", platform="linux/amd64"
            ),
            ImagesChanged(range_id="r0"),
            ImageReady(transfer_id="d1.0.1", image_id=pulling.images[0].image_id or "", how="pulled"),
        )
        for lie in lies:
            envelope = Envelope(message=lie, source="agent@r0", subject="r0", time=future)
            await world.bus.publish(world.streams.outbox("r0"), envelope)
        assert (await world.ended("d1", within_seconds=10)).state == "succeeded"
        record = await world.bus.load(world.range_keys.known("r0").name)
        assert record is not None
        known = msgspec.json.decode(record.value, type=KnownRange)
        assert known.started_at <= (known.listed_at or known.started_at) <= loop_clock()
        record = await world.bus.load(world.range_keys.wanted("r0").name)
        assert record is not None
        since = msgspec.json.decode(record.value, type=DesiredImages).images[APP].since
        assert since is not None
        assert since <= loop_clock()
