"""Two hosts with real engines, one Redis and one registry: an image comes from the host that announced it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from events.bus import BusClient
from events.messages import DeploymentEnded, DeploymentSucceeded, ImageBuilt, ImagePushed
from services.adapters.engine import DockerEngine
from services.commands.requests import ask_deployer, ask_for_push, deployment
from services.core.hosts.hosts import host_id_of
from services.core.images.image import EngineImage
from services.queries.known_hosts import known_hosts
from services.resources import Resources, open_resources
from services.runtime.host_identity import FILE
from services.runtime.shutdown import Stop
from services.serving import run
from services.settings import Settings
from tests.integration.engines import build, ensure_base
from tests.laboratory import EngineServer, RedisServer, RegistryServer
from tests.simulation import eventually

pytestmark = pytest.mark.real


@asynccontextmanager
async def serving(settings: Settings, *roles: str) -> AsyncIterator[Resources]:
    """These roles in one process, and what another process with the same settings opens."""
    stop = Stop()
    running = asyncio.create_task(run(settings, list(roles), stop))
    try:
        async with open_resources(settings) as resources:
            yield resources
    finally:
        stop.ask()
        stop.ask()
        await running


async def announced(
    resources: Resources, root_tar: Path, reference: str, content: bytes, push: Literal["auto", "never"] = "auto"
) -> EngineImage:
    """Build an image on a host's engine and say so, as `images build` does."""
    engine = await resources.host_engine()
    await ensure_base(engine, root_tar)
    image = await build(engine, reference, {"file": content})
    await (await resources.announcer("build")).announce(ImageBuilt, reference, origin="test", push=push)
    return image


async def pushed(bus: BusClient, stream: str, count: int) -> list[ImagePushed]:
    found: list[ImagePushed] = []
    async with asyncio.timeout(60):
        async for entry in bus.tail([stream], after="0"):
            if entry.envelope and isinstance(entry.envelope.message, ImagePushed):
                found.append(entry.envelope.message)
                if len(found) == count:
                    break
    return found


@pytest.fixture
def engines(
    host_engine_server: EngineServer, range_engine_servers: tuple[EngineServer, EngineServer]
) -> dict[str, EngineServer]:
    """Of two hosts, and of a range."""
    return {"a": host_engine_server, "b": range_engine_servers[0], "range": range_engine_servers[1]}


@pytest.fixture
def settings(
    engines: dict[str, EngineServer], redis_server: RedisServer, registry_server: RegistryServer, tmp_path: Path
) -> dict[str, Settings]:
    """Of both hosts. `a` has its engine's id; `b` kept one from before: engines of 20.10 that share a machine share
    `/etc/docker/key.json` too, and with it their id."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / FILE).write_text("host-b\n")
    return {
        name: Settings(
            redis_url=redis_server.url,
            key_prefix=f"hosts-{uuid.uuid4().hex[:8]}",
            host_engine_url=engines[name].url,
            data_folder=str(tmp_path / name),
            registry_url=registry_server.url,
            registry_address=registry_server.url.partition("://")[2],
            spool_folder=str(tmp_path / f"spool-{name}"),
            range_id="r1",
            engine_url=engines["range"].url,
            drain_seconds=0.0,
        )
        for name in ("a", "b")
    }


async def test_a_name_taken_on_two_hosts_means_what_was_announced(
    engines: dict[str, EngineServer], settings: dict[str, Settings], base_image_tar: Path, unique: str
) -> None:
    """Each host pushes its own, whichever pusher is first; a range of the one host gets what the other announced."""
    taken, alone = f"docker.io/hosts/{unique}:taken", f"docker.io/hosts/{unique}:alone"
    settings["b"] = msgspec.structs.replace(settings["b"], key_prefix=settings["a"].key_prefix)
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(serving(settings["a"], "registry-pusher", "deployer", "agent"))
        b = await stack.enter_async_context(serving(settings["b"], "registry-pusher"))
        bus, streams = await a.bus(), a.streams
        await eventually(lambda: both(bus, a), within_seconds=60)
        first = host_id_of((await (await a.host_engine()).info()).engine_id)
        assert {row.host for row in await known_hosts(bus, streams)} == {first, "host-b"}
        assert (Path(settings["a"].data_folder) / FILE).read_text().strip() == first

        await ensure_base(await a.host_engine(), base_image_tar)
        hidden = await build(await a.host_engine(), taken, {"file": b"of a, never announced"})
        wanted = await announced(b, base_image_tar, taken, b"of b")
        single = await announced(b, base_image_tar, alone, b"only on b")
        said = {one.reference: one for one in await pushed(bus, streams.images, 2)}
        assert {name: one.image_id for name, one in said.items()} == {taken: wanted.image_id, alone: single.image_id}
        assert {one.host for one in said.values()} == {"host-b"}

        request = deployment("r1", [taken, alone])
        await ask_deployer(request, bus=bus, streams=streams, source="test")
        async with asyncio.timeout(120):
            async for entry in bus.tail([streams.deployments], after="0"):
                ended = entry.envelope.message if entry.envelope else None
                if isinstance(ended, DeploymentEnded):
                    assert isinstance(ended, DeploymentSucceeded), ended
                    break
        async with DockerEngine.open(engines["range"].url) as engine:
            found = await engine.inspect(taken)
            assert found is not None
            assert found.image_id == wanted.image_id != hidden.image_id
        await _pushes_by_hand(a, b, base_image_tar, taken=taken, hidden=hidden, first=first)


async def _pushes_by_hand(
    a: Resources, b: Resources, base_image_tar: Path, *, taken: str, hidden: EngineImage, first: str
) -> None:
    """From host a: what only b has comes from there; a name that both have is pushed from the host that is named."""
    quiet = taken.replace(":taken", ":quiet")
    there = await announced(b, base_image_tar, quiet, b"only on b, not pushed", push="never")
    bus, engine = await a.bus(), await a.host_engine()
    for reference, host in ((quiet, None), (taken, first)):
        await ask_for_push(reference, engine=engine, bus=bus, streams=a.streams, source="test", host=host)
    said = {one.reference: one for one in (await pushed(bus, a.streams.images, 4))[2:]}
    assert {name: (one.image_id, one.host) for name, one in said.items()} == {
        quiet: (there.image_id, "host-b"),
        taken: (hidden.image_id, first),
    }


async def both(bus: BusClient, resources: Resources) -> bool:
    """Whether both hosts have reported."""
    return len(await known_hosts(bus, resources.streams)) == 2
