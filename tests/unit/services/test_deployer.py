"""The deployer as a role, among twins, in faked time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from bench.world import World, eventually, loop_clock
from events.envelope import Envelope
from events.messages import (
    AgentStarted,
    DeploymentCancelRequested,
    DeploymentEnded,
    DeploymentFailed,
    DeploymentPlanned,
    DeploymentRequested,
    DeploymentRetryRequested,
    DeploymentSucceeded,
    Failure,
    ImageFailed,
    ImageReady,
    TarRequested,
    TransferProgress,
)
from services.adapters.memory_engine import Fault
from services.core.deployment import Policy
from services.core.holdings import HoldingKeys, Holdings
from services.core.manifests import sha256
from services.core.offers import Offer, offer_key
from services.core.plans import PlanKeys
from services.core.ranges import WantedImages
from services.deployer import Deployer
from services.plan_book import latest_plans, one_plan

pytestmark = pytest.mark.faked_time

APP = "docker.io/library/app:1"
BASE = b"base" * 100


def request(deployment_id: str = "d1", range_id: str = "r0", *images: str, **more: object) -> DeploymentRequested:
    return DeploymentRequested(
        deployment_id=deployment_id,
        range_id=range_id,
        images=images or ("app:1",),
        **more,  # type: ignore[arg-type]
    )


async def test_an_image_goes_through_the_registry_into_the_range() -> None:
    """A deployment pushes what the registry lacks, and succeeds once the range has the host's content."""
    async with World() as world:
        image = world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request())
        ended = await world.ended("d1", within_seconds=10)
        assert ended.state == "succeeded"
        assert ended.images[0].how == "pulled"
        found = await world.engines["r0"].inspect(APP)
        assert found is not None
        assert found.image_id == image.image_id
        assert found.repo_digests == ()
        assert [type(one) for one in await world.ends("d1")] == [DeploymentSucceeded]


async def test_the_same_image_again_sends_nothing() -> None:
    """A range that has the content says so, and no byte moves."""
    async with World() as world:
        world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request("d1"))
        await world.ended("d1", within_seconds=10)
        uploads, pulls = len(world.registry.uploaded), world.engines["r0"].counts["pull"]
        await world.say(world.streams.deployments, request("d2"))
        ended = await world.ended("d2", within_seconds=10)
        assert ended.images[0].how == "present"
        assert (len(world.registry.uploaded), world.engines["r0"].counts["pull"]) == (uploads, pulls)


async def test_a_tag_that_was_rebuilt_brings_the_new_content() -> None:
    """The same reference with other content on the host is pushed and pulled again."""
    async with World() as world:
        world.host.add_image(APP, [BASE, b"old"])
        await world.say(world.streams.deployments, request("d1"))
        await world.ended("d1", within_seconds=10)
        new = world.host.add_image(APP, [BASE, b"new"])
        await world.say(world.streams.deployments, request("d2"))
        assert (await world.ended("d2", within_seconds=10)).state == "succeeded"
        found = await world.engines["r0"].inspect(APP)
        assert found is not None
        assert found.image_id == new.image_id


async def test_without_the_registry_images_go_by_tar() -> None:
    """The registry is away: the deployment falls back and succeeds all the same."""
    async with World() as world:
        world.registry.away = True
        world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request())
        ended = await world.ended("d1", within_seconds=10)
        assert (ended.state, ended.images[0].how) == ("succeeded", "loaded")


async def test_content_that_only_the_registry_has_is_enough() -> None:
    """The host's engine forgot the image, the registry still has it."""
    async with World() as world:
        world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request("d1", "r0"))
        await world.ended("d1", within_seconds=10)
        await world.host.untag(APP)
        await world.say(world.streams.deployments, request("d2", "r1"))
        assert (await world.ended("d2", within_seconds=10)).state == "succeeded"


async def test_an_image_nobody_has_fails_with_what_to_do() -> None:
    """Neither host nor registry has it: the image fails at once, the others of the deployment arrive."""
    async with World() as world:
        world.host.add_image(APP, [b"app"])
        await world.say(world.streams.deployments, request("d1", "r0", "app:1", "nothing:9"))
        ended = await world.ended("d1", within_seconds=10)
        assert ended.state == "failed"
        assert [image.state for image in ended.images] == ["ready", "failed"]
        error = ended.images[1].error
        assert error is not None
        assert error.code == "image_not_found"
        assert "build, import or promote it" in error.message


async def test_a_range_without_an_agent_fails_after_the_grace() -> None:
    """No agent: said at once as progress, failed with that reason after the grace."""
    async with World() as world:
        world.host.add_image(APP, [b"app"])
        await world.say(world.streams.deployments, request("d1", "nobody"))
        ended = await world.ended("d1", within_seconds=world.policy.agent_grace_seconds + 20)
        error = ended.images[0].error
        assert error is not None
        assert error.code == "no_agent"
        notes = [getattr(one, "note", "") for one in await world.said(world.streams.progress)]
        assert "range nobody has no live agent and never announced itself: waiting 60 s for it" in notes


async def test_an_agent_that_comes_late_is_served() -> None:
    """An agent that starts within the grace gets what waits for it at once."""
    async with World() as world:
        world.host.add_image(APP, [b"app"])
        await world.processes["agent-r0"].kill()
        await world.bus.beat(world.streams.alive("r0"), b"{}", 0.001)
        await world.say(world.streams.deployments, request("d1"))
        await world.until(lambda found: found.images[0].absent_since is not None, "d1")
        world.processes["agent-r0"].start()
        assert (await world.ended("d1", within_seconds=10)).state == "succeeded"


async def test_bad_references_are_refused_with_one_reason() -> None:
    """A request with a reference that is none fails as a whole, and says which."""
    async with World() as world:
        await world.say(world.streams.deployments, request("d1", "r0", "app:1", "UPPER/Case:1"))
        ended = await world.ended("d1", within_seconds=10)
        assert ended.error is not None
        assert ended.error.code == "bad_reference"
        assert "UPPER/Case:1" in ended.error.message


async def test_too_many_images_are_refused() -> None:
    """Ten thousand images in one deployment are refused before anything is looked up."""
    async with World() as world:
        await world.say(world.streams.deployments, request("d1", "r0", *(f"app:{n}" for n in range(10_000))))
        ended = await world.ended("d1", within_seconds=10)
        assert ended.error is not None
        assert "10000 images" in ended.error.message


async def test_the_same_request_gets_the_same_answer() -> None:
    """A known id with the same content repeats the answer; nothing is done twice."""
    async with World() as world:
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
    async with World() as world:
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


async def test_cancelling_ends_it_and_stops_the_agent() -> None:
    """A cancelled deployment ends cancelled, and its transfer is called off."""
    async with World(policy=Policy(pulls_per_host=1)) as world:
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
    async with World() as world:
        world.host.add_image(APP, [b"app"])
        await world.mute("r0")
        await world.say(world.streams.deployments, request("d1"))
        await world.until(lambda found: found.images[0].state == "pulling", "d1")
        asked = TarRequested(transfer_id="d1.0.1", reason=Failure(code="stalled", message="no byte"))
        await world.say(world.streams.outbox("r0"), asked)
        await eventually(lambda: world.bus.load(offer_key("cyroid", "d1.0.1")), within_seconds=10)
        await world.say(world.streams.deployments, DeploymentCancelRequested(deployment_id="d1"))
        assert (await world.ended("d1", within_seconds=5)).state == "cancelled"
        assert await world.bus.load(offer_key("cyroid", "d1.0.1")) is None


async def test_a_range_that_gets_nowhere_does_not_keep_the_host_from_others() -> None:
    """Its images take the slots of one range, whatever else is free; those of another range arrive meanwhile."""
    async with World(policy=Policy(pulls_per_host=3, pulls_per_range=2)) as world:
        images = [f"docker.io/library/app-{number}:1" for number in range(4)]
        for number, reference in enumerate(images):
            world.host.add_image(reference, [b"app %d" % number])
        await world.mute("r0")
        await world.say(world.streams.deployments, request("d1", "r0", *images))
        await world.until(lambda found: [one.state for one in found.images].count("pulling") == 2, "d1")
        await world.say(world.streams.deployments, request("d2", "r1", *images))
        assert (await world.ended("d2", within_seconds=10)).state == "succeeded"
        stuck = await world.deployment("d1")
        assert stuck is not None
        assert sorted(one.state for one in stuck.images) == ["pulling", "pulling", "queued", "queued"]


async def test_retrying_does_only_what_is_missing() -> None:
    """After a failure is mended, a retry brings the failed image alone."""
    async with World() as world:
        world.host.add_image(APP, [b"app"])
        await world.say(world.streams.deployments, request("d1", "r0", "app:1", "late:1"))
        assert (await world.ended("d1", within_seconds=10)).state == "failed"
        world.host.add_image("docker.io/library/late:1", [b"late"])
        await world.say(world.streams.deployments, DeploymentRetryRequested(deployment_id="d1"))
        ended = await world.until(lambda found: found.round == 2 and not found.open, "d1")
        assert ended.state == "succeeded"
        assert [image.attempt for image in ended.images] == [1, 2]


async def test_a_range_recreated_empty_gets_its_content_again() -> None:
    """A new engine under a known range is told again what it should have, as the content that was deployed."""
    async with World() as world:
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
    async with World(policy=Policy(agent_grace_seconds=20.0)) as world:
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
    async with World() as world:
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
    async with World() as world:
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
    async with World() as world:
        image = world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request("d1"))
        await world.ended("d1", within_seconds=10)
        await asyncio.sleep(70)
        assert await restoring(world) is None
        await world.engines["r0"].untag(APP)
        found = await eventually(lambda: world.engines["r0"].inspect(APP), within_seconds=200)
        assert found.image_id == image.image_id


@pytest.mark.parametrize("known", [True, False])
async def test_a_request_that_was_given_up_has_one_outcome(known: bool) -> None:
    """A repeated request that crashed its workers ends nothing; one without a deployment has failed."""
    async with World() as world:
        world.host.add_image(APP, [b"app"])
        await world.mute("r0")
        if known:
            await world.say(world.streams.deployments, request("d1"))
            await world.until(lambda found: found.images[0].state == "pulling", "d1")
        deployer = Deployer(
            speaker=world.bus,
            engine=world.host,
            registry=world.registry,
            streams=world.streams,
            source="deployer@given-up",
            tar_url="http://tar:7070",
            clock=loop_clock,
        )
        repeated = Envelope(message=request("d1"), source="operator", subject="r0")
        (subscription,) = deployer.subscriptions()
        await world.bus.commit(subscription.give_up(repeated, Failure(code="crashed", message="5 workers vanished")))
        await world.say(world.streams.deployments, request("d2", "r1"))
        await world.ended("d2", within_seconds=10)
        ends = await eventually(lambda: world.ends("d1"), within_seconds=10) if not known else await world.ends("d1")
        assert [(type(one), one.range_id) for one in ends] == ([] if known else [(DeploymentFailed, "r0")])


async def test_a_cancel_that_overtakes_its_request_stops_it() -> None:
    """It is put aside until the request was taken up; one for a deployment that never comes is refused."""
    async with World() as world:
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


async def test_an_archive_is_offered_with_the_layers_as_the_registry_has_them() -> None:
    """The pull failed, the image is in the registry: the tar server learns under which blobs an engine knows layers."""
    async with World() as world:
        image = world.host.add_image(APP, [BASE, b"app"])
        await world.mute("r0")
        await world.say(world.streams.deployments, request("d1"))
        await world.until(lambda found: found.images[0].state == "pulling", "d1")
        why = Failure(code="stalled", message="no byte")
        asked = TarRequested(transfer_id="d1.0.1", reason=why, diff_ids=image.diff_ids[:1], layout="oci")
        await world.say(world.streams.outbox("r0"), asked)
        record = await eventually(lambda: world.bus.load(offer_key("cyroid", "d1.0.1")), within_seconds=10)
        offer = Offer.parse(record.value)
        assert [layer.diff_id for layer in offer.layers] == list(image.diff_ids)
        assert offer.held == image.diff_ids[1:]


async def test_a_range_is_given_again_what_arrived_last_and_not_what_ended_last() -> None:
    """A deployment of older content that ends late, for another image's sake, does not make a recreated range older."""
    slow = "docker.io/library/slow:1"
    async with World() as world:
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
        record = await world.bus.load(world.range_keys.wanted("r0"))
        assert record is not None
        assert msgspec.json.decode(record.value, type=WantedImages).images[APP].image_id == new.image_id
        record = await eventually(lambda: world.bus.load(HoldingKeys("cyroid").holdings("r0")), within_seconds=10)
        assert msgspec.json.decode(record.value, type=Holdings).images[APP] == new.image_id


async def test_content_that_was_built_over_gives_way_to_what_the_name_has_now() -> None:
    """It was resolved, and is nowhere any more when it is looked for again: the name decides, as for a new request."""
    async with World(stores={"host": "containerd"}) as world:
        world.host.add_image(APP, [BASE, b"old"])
        await world.mute("r0")
        world.registry.away = True
        await world.say(world.streams.deployments, request("d1"))
        await world.until(lambda found: found.images[0].state == "falling_back", "d1")
        world.registry.away = False
        world.host.add_image(APP, [BASE, b"new"])
        why = Failure(code="transfer_failed", message="cut off", retryable=True)
        await world.say(world.streams.outbox("r0"), ImageFailed(transfer_id="d1.0.1", error=why))
        await world.until(lambda found: found.images[0].state == "resolving", "d1")
        world.processes["agent-r0"].start()
        ended = await world.ended("d1", within_seconds=60)
        assert (ended.state, ended.images[0].image_id) == ("succeeded", sha256(world.host.config(APP)))
        notes = [getattr(one, "note", "") for one in await world.said(world.streams.progress)]
        assert any("what the name has now is taken" in note for note in notes)


async def restoring(world: World) -> str | None:
    """A restoring deployment's id."""
    idents = await world.bus.members(world.keys.all)
    return next((ident for ident in idents if ident.startswith("restore-")), None)


def started(range_id: str, engine_id: str) -> AgentStarted:
    return AgentStarted(
        range_id=range_id, engine_id=engine_id, engine_version="26.1.5", store="classic", platform="linux/amd64"
    )


async def test_a_plan_preheats_the_registry_and_the_ranges_that_are_up() -> None:
    """Planned images are in the registry and in the live range before anybody asks for them."""
    async with World() as world:
        image = world.host.add_image(APP, [BASE, b"app"])
        plan = DeploymentPlanned(plan_id="p1", images=("app:1",), range_ids=("r0", "nobody"))
        await eventually(lambda: world.bus.members("cyroid:index:known"), within_seconds=10)
        await world.say(world.streams.deployments, plan)
        found = await eventually(lambda: world.engines["r0"].inspect(APP), within_seconds=10)
        assert found.image_id == image.image_id
        await world.say(world.streams.deployments, request("d1"))
        assert (await world.ended("d1", within_seconds=10)).images[0].how == "present"


async def test_a_plan_says_how_far_it_is_and_reaches_ranges_that_came_up_since() -> None:
    """What is in the registry, which range has all of it, which was away; the same plan again is for those."""
    async with World() as world:
        world.host.add_image(APP, [BASE, b"app"])
        plan = DeploymentPlanned(plan_id="p1", images=("app:1",), range_ids=("r0", "late"))
        await eventually(lambda: world.bus.members("cyroid:index:known"), within_seconds=10)
        await world.say(world.streams.deployments, plan)

        async def settled() -> dict[str, Any] | None:
            row = await one_plan(world.bus, world.streams, "p1")
            return row if row["state"] == "incomplete" else None

        row = await eventually(settled, within_seconds=10)
        assert row["images"] == [{"reference": APP, "registry": "there", "error": None}]
        assert {one["range_id"]: (one["state"], one["ready"]) for one in row["ranges"]} == {
            "r0": ("succeeded", 1),
            "late": ("away", 0),
        }
        await world.bus.beat(world.streams.alive("late"), b"{}", 5.0)
        await world.say(world.streams.deployments, plan)

        async def late() -> str | None:
            (_, one) = (await one_plan(world.bus, world.streams, "p1"))["ranges"]
            return one["state"] if one["state"] not in ("away", "requested") else None

        async def away_again() -> bool:
            return await world.bus.beats([world.streams.alive("late")]) == [None]

        async def taken() -> bool:
            (deployer,) = [
                one for one in await world.bus.groups([world.streams.deployments], 100) if one.group == "deployer"
            ]
            return (deployer.lag, deployer.pending) == (0, 0)

        assert await eventually(late, within_seconds=10)
        assert await eventually(away_again, within_seconds=60)
        await world.say(world.streams.deployments, plan)
        assert await eventually(taken, within_seconds=10)
        assert await late()  # what it was given is not forgotten because it is away now
        asked = [one for one in await world.said(world.streams.deployments) if isinstance(one, DeploymentRequested)]
        assert sorted(one.range_id for one in asked) == ["late", "r0"]
        assert [row["plan_id"] for row in await latest_plans(world.bus, world.streams, 10)] == ["p1"]


async def test_a_plan_is_remembered_as_long_as_deployments_are() -> None:
    """Then it is in no list any more."""
    async with World(policy=Policy(keep_seconds=100)) as world:
        await world.say(world.streams.deployments, DeploymentPlanned(plan_id="p1", images=("app:1",)))
        index = PlanKeys("cyroid").all
        assert await eventually(lambda: world.bus.members(index), within_seconds=10) == ["p1"]

        async def gone() -> bool:
            return await world.bus.members(index) == [] and await world.bus.load("cyroid:plan:p1") is None

        assert await eventually(gone, within_seconds=400)


async def test_another_plan_under_a_known_id_is_refused() -> None:
    """The first one stays as it is; the second is a dead letter."""
    async with World() as world:
        for reference in ("app:1", "app:2"):
            await world.say(world.streams.deployments, DeploymentPlanned(plan_id="p1", images=(reference,)))
            await eventually(lambda: world.bus.load("cyroid:plan:p1"), within_seconds=10)
        await eventually(lambda: world.bus.discover(world.streams.dead), within_seconds=10)
        row = await one_plan(world.bus, world.streams, "p1")
        assert [image["reference"] for image in row["images"]] == [APP]


async def test_a_large_plan_is_carried_out_in_parts_and_once() -> None:
    """More than one commit holds, told twice by mistake: every range that is up is asked for once."""
    async with World() as world:
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
    async with World(policy=Policy(images=2)) as world:
        plan = DeploymentPlanned(plan_id="p1", images=("a:1", "b:1", "c:1"))
        await world.say(world.streams.deployments, plan)
        await eventually(lambda: world.bus.discover(world.streams.dead), within_seconds=10)
        assert await world.said(world.streams.images) == []


async def test_a_range_cannot_speak_for_another() -> None:
    """Word about a transfer of another range's deployment changes nothing."""
    async with World() as world:
        image = world.host.add_image(APP, [b"app"])
        await world.mute("r0")
        await world.say(world.streams.deployments, request("d1", "r0"))
        before = await world.until(lambda found: found.images[0].state == "pulling", "d1")
        lie = ImageReady(transfer_id="d1.0.1", image_id=image.image_id or "", how="pulled")
        await world.say(world.streams.outbox("r1"), lie)
        await world.say(world.streams.deployments, request("d2", "r1"))
        await world.ended("d2", within_seconds=10)
        assert (await world.deployment("d1")) == before


async def test_without_the_registry_images_of_a_containerd_host_go_by_tar() -> None:
    """That engine names manifests only: the config digest is read out of it, so the tar's way is open all the same."""
    async with World(stores={"host": "containerd"}) as world:
        world.registry.away = True
        world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request())
        ended = await world.ended("d1", within_seconds=30)
        assert (ended.state, ended.images[0].how) == ("succeeded", "loaded")
        assert ended.images[0].image_id == sha256(world.host.config(APP))
