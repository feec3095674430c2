"""What the deployer commits when a deployment ends, and what it counts."""

from __future__ import annotations

import base64
import json

import pytest
from msgspec.structs import replace

from events.messages import DeploymentCancelRequested, PullRequested
from services.core.deployments.pull_tokens import repository_of
from services.runtime.metrics import REGISTRY
from tests.simulation import SETTINGS, Cluster
from tests.unit.services.deployment_requests import APP, BASE, request

pytestmark = pytest.mark.faked_time


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("cyroid_deployments_total", {"outcome": outcome}) or 0.0


async def test_a_deployment_that_succeeds_is_counted_once() -> None:
    """Also when it brings several images."""
    before = counted("succeeded")
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"app"])
        world.host.add_image("docker.io/library/other:1", [BASE, b"other"])
        await world.say(world.streams.deployments, request("d1", "r0", APP, "docker.io/library/other:1"))
        assert (await world.ended("d1", within_seconds=30)).state == "succeeded"
    assert counted("succeeded") - before == 1


async def test_a_deployment_that_fails_is_counted_once() -> None:
    """One of an image that nobody has."""
    before = counted("failed")
    async with Cluster() as world:
        await world.say(world.streams.deployments, request())
        assert (await world.ended("d1", within_seconds=60)).state == "failed"
    assert counted("failed") - before == 1


async def test_a_deployment_that_is_cancelled_is_counted_once() -> None:
    """However often its cancel is asked for."""
    before = counted("cancelled")
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"app"])
        await world.mute("r0")
        await world.say(world.streams.deployments, request())
        await world.until(lambda found: found.images[0].state == "pulling", "d1")
        for _ in range(2):
            await world.say(world.streams.deployments, DeploymentCancelRequested(deployment_id="d1", reason="enough"))
        assert (await world.ended("d1", within_seconds=60)).state == "cancelled"
    assert counted("cancelled") - before == 1


async def tokens_of(world: Cluster) -> list[str | None]:
    """What the range's inbox has asked it to pull with."""
    entries = world.bus.tail([world.streams.inbox("r0")], after="0", follow=False)
    messages = [entry.envelope.message async for entry in entries if entry.envelope]
    return [message.registry_token for message in messages if isinstance(message, PullRequested)]


async def test_a_pull_carries_a_token_for_its_repository() -> None:
    """Where the pull side asks for one."""
    settings = replace(SETTINGS, registry_auth="token", registry_pull_key="k3y")
    async with Cluster(settings=settings) as world:
        world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request())
        assert (await world.ended("d1", within_seconds=30)).state == "succeeded"
        (token,) = await tokens_of(world)
    assert token is not None
    claims = token.split(".")[1]
    repository = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["repository"]
    assert repository == repository_of(f"registry/{APP.removeprefix('docker.io/').partition(':')[0]}@x")


async def test_a_pull_carries_no_token_in_a_laboratory() -> None:
    """`CYROID_REGISTRY_AUTH=none` is for one."""
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request())
        assert (await world.ended("d1", within_seconds=30)).state == "succeeded"
        assert await tokens_of(world) == [None]
