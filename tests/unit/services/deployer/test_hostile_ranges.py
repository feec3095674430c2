"""A hostile range can end its own deployments, and nobody else's. Among fakes, in faked time."""

from __future__ import annotations

import asyncio
import re

import msgspec
import pytest

from events.bus import Outcome
from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.memory.store import LAST_ID
from events.messages import (
    DeploymentAdvance,
    DeploymentCancelRequested,
    DeploymentPlanned,
    DeploymentRequested,
    DeploymentSucceeded,
    Failure,
    ImageDeleted,
    ImageFailed,
    ImagePushFailed,
    ImageReady,
    Message,
    TarRequested,
)
from tests.simulation import SETTINGS, Cluster, eventually
from tests.unit.services.deployment_requests import APP, request

pytestmark = pytest.mark.faked_time
DIGEST = "sha256:" + "a" * 64
COMMANDS: list[Message] = [
    DeploymentRequested(deployment_id="stolen", range_id="r1", images=(APP,), engine_url="tcp://172.30.1.6:2375"),
    DeploymentCancelRequested(deployment_id="d1"),
    DeploymentPlanned(plan_id="p", images=(APP,), range_ids=("r1",)),
    DeploymentAdvance(deployment_id="d1", error=Failure(code="refused", message="no")),
    DeploymentAdvance(deployment_id="made-up", error=Failure(code="c", message="no")),
    DeploymentSucceeded(deployment_id="d1", range_id="r1"),
    ImagePushFailed(reference=APP, error=Failure(code="c", message="no")),
    ImageDeleted(reference=APP, manifest_digest=DIGEST),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
async def test_a_command_out_of_an_outbox_is_carried_out_by_nobody(command: Message) -> None:
    """It is refused, kept with what else that range said wrongly, and the other range's deployment succeeds."""
    async with Cluster() as world:
        world.host.add_image(APP, [b"app"])
        await world.mute("r1")
        await world.say(world.streams.deployments, request("d1", "r1"))
        await world.until(lambda found: found.images[0].state == "pulling", "d1")
        await world.say(world.streams.outbox("r0"), command)
        refused = world.streams.refused("r0")
        await eventually(lambda: world.bus.discover(refused), within_seconds=60)
        assert await world.deployment("stolen") is None
        assert await world.bus.members(world.range_keys.places) == []
        deployment = await world.deployment("d1")
        assert deployment is not None
        assert deployment.open
        assert [one.deployment_id for one in await world.ends("d1")] == []


@pytest.mark.parametrize("queued", [False, True])
async def test_an_inbox_that_takes_nothing_ends_its_own_deployment(queued: bool) -> None:
    """With the reason; another range's deployments go on, those that wait in the same queue too."""
    slots = 1 if queued else 4
    async with Cluster(settings=msgspec.structs.replace(SETTINGS, extractions_limit=slots)) as world:
        world.host.add_image(APP, [b"app"])
        if queued:
            await world.mute("r1")
            await world.say(world.streams.deployments, request("first", "r1"))
            await world.until(lambda found: found.images[0].state == "pulling", "first")
        world.bus._stream(world.streams.inbox("r0")).last_id = LAST_ID
        await world.say(world.streams.deployments, request("bad", "r0"))
        if queued:
            await world.until(lambda found: found.images[0].state == "queued", "bad")
            await world.say(world.streams.deployments, request("second", "r1"))
            await world.until(lambda found: found.images[0].state == "queued", "second")
            await world.say(world.streams.deployments, DeploymentCancelRequested(deployment_id="first"))
            await world.ended("first", within_seconds=30)
        bad = await world.ended("bad", within_seconds=120)
        assert bad.state == "failed"
        error = bad.images[0].error
        assert error is not None
        assert "no command can be given to range r0" in error.message
        if queued:
            await world.until(lambda found: found.images[0].state == "pulling", "second")
        else:
            await world.say(world.streams.deployments, request("good", "r1"))
            assert (await world.ended("good", within_seconds=30)).state == "succeeded"


async def test_no_commit_carries_the_keys_of_two_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is committed in a busy installation: admission of many, an index that moves, a cancel, a fallback."""
    carried: list[set[str]] = []
    check = MemoryBus._check

    def seen(self: MemoryBus, outcome: Outcome) -> list[dict[bytes, bytes]]:
        keys = [
            *(post.stream for post in outcome.posts),
            *(write.key for write in outcome.records),
            *(entry.key for entry in outcome.index),
        ]
        carried.append({found[1] for key in keys if (found := re.search(r":range:([^:]+):", key))})
        return check(self, outcome)

    monkeypatch.setattr(MemoryBus, "_check", seen)
    async with Cluster(settings=msgspec.structs.replace(SETTINGS, extractions_limit=4)) as world:
        world.host.add_image(APP, [b"app"])
        world.host.add_image("db:1", [b"db"])
        for number in range(8):
            asked = request(f"d{number}", f"r{number % 2}")
            await world.say(world.streams.deployments, msgspec.structs.replace(asked, images=(APP, "db:1")))
        await world.say(world.streams.deployments, DeploymentCancelRequested(deployment_id="d7"))
        for number in range(8):
            await eventually(lambda number=number: _ended(world, f"d{number}"), within_seconds=600)  # type: ignore[misc]
    assert {frozenset(ranges) for ranges in carried} >= {frozenset({"r0"}), frozenset({"r1"})}
    assert [ranges for ranges in carried if len(ranges) > 1] == []


async def _ended(world: Cluster, deployment_id: str) -> bool:
    return bool(await world.ends(deployment_id))


async def test_a_word_about_anothers_transfer_waits_for_no_lock_and_holds_none() -> None:
    """Twenty thousand times; the range that is spoken of succeeds in the meantime, and nothing of it is believed."""
    async with Cluster() as world:
        image = world.host.add_image(APP, [b"app"])
        await world.mute("r1")
        await world.say(world.streams.deployments, request("d1", "r1"))
        await world.until(lambda found: found.images[0].state == "pulling", "d1")
        assert image.image_id is not None
        ready = ImageReady(transfer_id="d1.0.1", image_id=image.image_id, how="pulled")
        asked = TarRequested(transfer_id="d1.0.1", reason=Failure(code="c", message="m"))
        failed = ImageFailed(transfer_id="d1.0.1", error=Failure(code="c", message="m"))
        words: list[Message] = [ready, asked, failed, ready]
        said = [Envelope(message=word, source="agent@r0", subject="r0") for word in words * 100]
        await world.bus.publish(world.streams.outbox("r0"), *said)
        started = asyncio.get_running_loop().time()
        await world.say(world.streams.outbox("r1"), ready)
        assert (await world.ended("d1", within_seconds=30)).state == "succeeded"
        assert asyncio.get_running_loop().time() - started < 5
        status = await eventually(lambda: _read(world), within_seconds=600)
        assert status
        assert len(await world.ends("d1")) == 1


async def _read(world: Cluster) -> bool:
    """Whether the deployer has read all that the range said."""
    found = await world.bus.groups([world.streams.outbox("r0")])
    return all(one.lag == 0 and one.pending == 0 for one in found if one.group == "deployer")
