"""Two hosts with engines, pushers and tar servers of their own, one registry and one bus, in faked time."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest

from events.messages import AgentStarted, ImageBuilt, ImagePushed, ImagePushFailed, PushRequested
from services.adapters.memory_engine import MemoryEngine
from services.core.images.image import EngineImage
from services.core.images.references import Reference
from services.core.ranges.ranges import KnownRange
from services.ingest.announcer import Announcer
from services.runtime.host_identity import HostIdentity
from tests.simulation import SETTINGS, Cluster, eventually
from tests.unit.services.deployment_requests import APP, BASE, request

pytestmark = pytest.mark.faked_time


async def announce(world: Cluster, host: str, reference: str = APP) -> None:
    """As a build on that host does."""
    engine = world.hosts[host]

    async def opened() -> MemoryEngine:
        return engine

    identity = HostIdentity(chosen=host, folder="", engine=opened)
    announcer = Announcer(
        engine=engine, bus=world.bus, streams=world.streams, source=f"build@{host}", identity=identity
    )
    await announcer.announce(ImageBuilt, reference, origin="test", push="auto")


async def pushed(world: Cluster) -> list[ImagePushed]:
    """Once there is one."""

    async def found() -> list[ImagePushed]:
        return [one for one in await world.said(world.streams.images) if isinstance(one, ImagePushed)]

    return await eventually(found, within_seconds=60)


async def in_registry(world: Cluster, reference: str = APP) -> str | None:
    """The image id under that name."""
    name = Reference.parse(reference)
    found = await world.registry.manifest(name.repository, name.registry_tag)
    return found[1].body.config.digest if found else None


async def brought(world: Cluster, deployment_id: str = "d1") -> EngineImage | None:
    """What the range has after a deployment that succeeded."""
    await world.say(world.streams.deployments, request(deployment_id))
    assert (await world.ended(deployment_id, within_seconds=300)).state == "succeeded"
    return await world.engines["r0"].inspect(APP)


@pytest.mark.parametrize("taken", [True, False])
async def test_what_a_host_announced_is_what_its_name_means(taken: bool) -> None:
    """Whichever pusher takes the announcement, and whatever another host has under that name."""
    async with Cluster(others=("other",), replicas=2) as world:
        if taken:
            world.host.add_image(APP, [BASE, b"of the first host"])
        image = world.hosts["other"].add_image(APP, [BASE, b"of the other"])
        await announce(world, "other")
        (said,) = await pushed(world)
        assert (said.image_id, said.host) == (image.image_id, "other")
        assert await in_registry(world) == image.image_id
        found = await brought(world)
        assert found is not None
        assert found.image_id == image.image_id


async def test_a_name_that_two_hosts_announce_means_what_came_last() -> None:
    """A deployment has that pushed again from its host if the registry has the other's."""
    async with Cluster(others=("other",)) as world:
        world.host.add_image(APP, [BASE, b"first"])
        await announce(world, "host")
        last = world.hosts["other"].add_image(APP, [BASE, b"last"])
        await announce(world, "other")
        found = await brought(world)
        assert found is not None
        assert found.image_id == last.image_id


async def test_an_image_that_nobody_announced_is_found_where_it_is() -> None:
    """Every host that is there is asked."""
    async with Cluster(others=("other", "third")) as world:
        image = world.hosts["third"].add_image(APP, [BASE, b"by hand"])
        found = await brought(world)
        assert found is not None
        assert found.image_id == image.image_id


async def test_without_the_registry_the_archive_comes_from_the_host_that_has_the_content() -> None:
    """From its own tar server."""
    async with Cluster(others=("other",)) as world:
        world.registry.away = True
        image = world.hosts["other"].add_image(APP, [BASE, b"of the other"])
        found = await brought(world)
        assert found is not None
        assert found.image_id == image.image_id


async def test_a_push_that_names_no_host_goes_from_one_to_the_next() -> None:
    """The one that has the image pushes it; where nobody has it, that is said once."""
    async with Cluster(others=("other", "third")) as world:
        image = world.hosts["third"].add_image(APP, [BASE, b"by hand"])
        await eventually(lambda: world.bus.members("cyroid:index:held:third"), within_seconds=60)
        await world.say(world.streams.images, PushRequested(reference="none:1"))
        await world.say(world.streams.images, PushRequested(reference=APP))
        (said,) = await pushed(world)
        assert (said.image_id, said.host) == (image.image_id, "third")

        async def failures() -> list[ImagePushFailed]:
            return [one for one in await world.said(world.streams.images) if isinstance(one, ImagePushFailed)]

        (failed,) = await eventually(failures, within_seconds=60)
        assert failed.error.code == "not_found"


async def test_content_of_a_host_that_is_away_is_not_replaced_by_another_hosts() -> None:
    """The deployment waits for that host, and says so at its end."""
    async with Cluster(others=("other",)) as world:
        world.host.add_image(APP, [BASE, b"of the first host"])
        world.hosts["other"].add_image(APP, [BASE, b"of the other"])
        await eventually(lambda: world.bus.members("cyroid:index:hosts"), within_seconds=60)
        for name, process in world.processes.items():
            if name.startswith("pusher-"):
                await process.kill()
        await announce(world, "other")
        world.processes["pusher-0"].start()
        await world.say(world.streams.deployments, request("d1"))
        ended = await world.ended("d1", within_seconds=600)
        assert ended.images[0].error is not None
        assert (ended.state, ended.images[0].error.code) == ("failed", "unavailable")
        assert "host other" in ended.images[0].error.message
        assert await in_registry(world) is None


async def test_a_range_is_on_the_host_where_it_came_up_first() -> None:
    """An agent that says to be elsewhere is refused, and changes nothing."""
    async with Cluster() as world:
        known = world.range_keys.known("r9")

        async def came_up(host: str, engine_id: str) -> None:
            started = AgentStarted(
                range_id="r9", engine_id=engine_id, engine_version="28", store="classic", platform="x/y", host=host
            )
            await world.say(world.streams.outbox("r9"), started, subject="r9")

        await came_up("a", "e1")
        await eventually(lambda: known_range(world, "r9"), within_seconds=60)
        await came_up("b", "e2")
        await eventually(lambda: world.bus.discover(world.streams.refused("r9")), within_seconds=60)
        found = await known.load(world.bus)
        assert found.value is not None
        assert (found.value.host, found.value.engine_id) == ("a", "e1")


async def test_each_host_has_slots_of_its_own() -> None:
    """While those of one host are taken, a range of another is served."""
    settings = msgspec.structs.replace(SETTINGS, extractions_limit=1)
    async with Cluster(settings=settings) as world:
        world.host.add_image(APP, [BASE, b"app"])
        for range_id, host in (("r8", "a"), ("r9", "b")):
            await world.bus.beat(world.streams.alive(range_id), b"{}", 1e6)
            started = AgentStarted(
                range_id=range_id,
                engine_id=range_id,
                engine_version="28",
                store="classic",
                platform="linux/amd64",
                host=host,
            )
            await world.say(world.streams.outbox(range_id), started, subject=range_id)
            await eventually(partial(known_range, world, range_id), within_seconds=60)
            await world.say(world.streams.deployments, request(f"d-{range_id}", range_id))
        for range_id in ("r8", "r9"):
            await world.until(lambda found: found.images[0].state == "pulling", f"d-{range_id}")


async def test_who_waits_is_served_as_slots_become_free() -> None:
    """One slot, many who wait, also while more of them come: each has its turn."""
    async with Cluster(ranges=6, settings=msgspec.structs.replace(SETTINGS, extractions_limit=1)) as world:
        images = [f"docker.io/library/app-{number}:1" for number in range(3)]
        for number, reference in enumerate(images):
            world.host.add_image(reference, [b"app %d" % number])
        for number in range(6):
            await world.say(world.streams.deployments, request(f"d{number}", f"r{number}", *images))
        for number in range(6):
            assert (await world.ended(f"d{number}", within_seconds=60)).state == "succeeded"


async def known_range(world: Cluster, range_id: str) -> KnownRange | None:
    return (await world.range_keys.known(range_id).load(world.bus)).value
