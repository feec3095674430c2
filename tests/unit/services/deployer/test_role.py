"""How the deployer brings images into ranges, among fakes, in faked time."""

from __future__ import annotations

import msgspec
import pytest

from events.messages import (
    DeploymentRetryRequested,
    DeploymentSucceeded,
    Failure,
    ImageFailed,
    ImageReady,
    TarRequested,
)
from services.core.deployments.offers import Offer, offer_key
from services.core.images.manifests import sha256
from tests.simulation import SETTINGS, Cluster, eventually
from tests.unit.services.deployment_requests import APP, BASE, request

pytestmark = pytest.mark.faked_time


async def test_an_image_goes_through_the_registry_into_the_range() -> None:
    """A deployment pushes what the registry lacks, and succeeds once the range has the host's content."""
    async with Cluster() as world:
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
    async with Cluster() as world:
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
    async with Cluster() as world:
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
    async with Cluster() as world:
        world.registry.away = True
        world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request())
        ended = await world.ended("d1", within_seconds=10)
        assert (ended.state, ended.images[0].how) == ("succeeded", "loaded")


async def test_content_that_only_the_registry_has_is_enough() -> None:
    """The host's engine forgot the image, the registry still has it."""
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request("d1", "r0"))
        await world.ended("d1", within_seconds=10)
        await world.host.untag(APP)
        await world.say(world.streams.deployments, request("d2", "r1"))
        assert (await world.ended("d2", within_seconds=10)).state == "succeeded"


async def test_an_image_nobody_has_fails_with_what_to_do() -> None:
    """Neither host nor registry has it: the image fails at once, the others of the deployment arrive."""
    async with Cluster() as world:
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
    async with Cluster() as world:
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
    async with Cluster() as world:
        world.host.add_image(APP, [b"app"])
        await world.processes["agent-r0"].kill()
        await world.bus.beat(world.streams.alive("r0"), b"{}", 0.001)
        await world.say(world.streams.deployments, request("d1"))
        await world.until(lambda found: found.images[0].absent_since is not None, "d1")
        world.processes["agent-r0"].start()
        assert (await world.ended("d1", within_seconds=10)).state == "succeeded"


async def test_a_range_that_gets_nowhere_does_not_keep_the_host_from_others() -> None:
    """Its images take the slots of one range, whatever else is free; those of another range arrive meanwhile."""
    async with Cluster(
        settings=msgspec.structs.replace(SETTINGS, extractions_limit=3, pulls_per_range_limit=2)
    ) as world:
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
    async with Cluster() as world:
        world.host.add_image(APP, [b"app"])
        await world.say(world.streams.deployments, request("d1", "r0", "app:1", "late:1"))
        assert (await world.ended("d1", within_seconds=10)).state == "failed"
        world.host.add_image("docker.io/library/late:1", [b"late"])
        await world.say(world.streams.deployments, DeploymentRetryRequested(deployment_id="d1"))
        ended = await world.until(lambda found: found.round == 2 and not found.open, "d1")
        assert ended.state == "succeeded"
        assert [image.attempt for image in ended.images] == [1, 2]


async def test_an_archive_is_offered_with_the_layers_as_the_registry_has_them() -> None:
    """The pull failed, the image is in the registry: the tar server learns under which blobs an engine knows layers."""
    async with Cluster() as world:
        image = world.host.add_image(APP, [BASE, b"app"])
        await world.mute("r0")
        await world.say(world.streams.deployments, request("d1"))
        await world.until(lambda found: found.images[0].state == "pulling", "d1")
        why = Failure(code="stalled", message="no byte")
        asked = TarRequested(transfer_id="d1.0.1", reason=why, diff_ids=image.diff_ids[:1], layout="oci")
        await world.say(world.streams.outbox("r0"), asked)
        record = await eventually(lambda: world.bus.load(offer_key("cyroid", "d1.0.1").name), within_seconds=10)
        offer = msgspec.json.decode(record.value, type=Offer)
        assert [layer.diff_id for layer in offer.layers] == list(image.diff_ids)
        assert offer.held == image.diff_ids[1:]


async def test_what_a_range_has_raw_is_not_named_as_the_registry_has_it() -> None:
    """The archive has to name it raw, whatever the registry has. A layer that the range lacks is not raw there."""
    async with Cluster() as world:
        image = world.host.add_image(APP, [BASE, b"app"])
        await world.mute("r0")
        await world.say(world.streams.deployments, request("d1"))
        await world.until(lambda found: found.images[0].state == "pulling", "d1")
        why = Failure(code="other_blobs", message="raw here")
        first = image.diff_ids[:1]
        asked = TarRequested(transfer_id="d1.0.1", reason=why, diff_ids=first, raw=image.diff_ids, layout="oci")
        await world.say(world.streams.outbox("r0"), asked)
        record = await eventually(lambda: world.bus.load(offer_key("cyroid", "d1.0.1").name), within_seconds=10)
        offer = msgspec.json.decode(record.value, type=Offer)
        assert [layer.diff_id for layer in offer.layers] == list(image.diff_ids[1:])
        assert offer.held == image.diff_ids[1:]


async def test_content_that_was_built_over_gives_way_to_what_the_name_has_now() -> None:
    """It was resolved, and is nowhere any more when it is looked for again: the name decides, as for a new request."""
    async with Cluster(stores={"host": "containerd"}) as world:
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


async def test_a_range_cannot_speak_for_another() -> None:
    """Word about a transfer of another range's deployment changes nothing."""
    async with Cluster() as world:
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
    async with Cluster(stores={"host": "containerd"}) as world:
        world.registry.away = True
        world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request())
        ended = await world.ended("d1", within_seconds=30)
        assert (ended.state, ended.images[0].how) == ("succeeded", "loaded")
        assert ended.images[0].image_id == sha256(world.host.config(APP))
