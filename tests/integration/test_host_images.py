"""Adoption, host reclaim and fetching with the role as it is composed, on real engines, a real registry and Redis."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from events.bus import IndexWrite, Outcome
from events.envelope import Envelope
from events.lease import Bus
from events.messages import (
    AdoptRequested,
    CollectRequested,
    FetchRequested,
    Message,
    PushRequested,
    ReclaimRequested,
)
from events.records import ANY
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker import Worker
from services.adapters.engine import DockerEngine
from services.bootstrap import ROLES
from services.collector.storage import RegistryStorage
from services.commands.host_images import adoption, fetched, reclaimed
from services.commands.request_reply import RequestReplyClient
from services.commands.store import collect
from services.core.images.read_model import RangeInventory, ReadModelKeys, RegistryEntry
from services.core.ranges.ranges import EnginePlace, RangeKeys
from services.ingest.build import BuildService
from services.ports import Engine, Registry
from services.resources import open_resources
from services.runtime.heartbeat import HeartbeatSender
from services.settings import Settings
from tests.images import tar_of
from tests.integration.collector.test_scrub import flip
from tests.integration.engines import build, ensure_base
from tests.laboratory import EngineServer, RedisServer, RegistryServer
from tests.unit.services.twins import chunks

pytestmark = pytest.mark.real
T = TypeVar("T")


@dataclass
class Site:
    """A registry-pusher at work, and who asks it."""

    engine: Engine
    registry: Registry
    asking: RequestReplyClient
    bus: Bus
    streams: Streams
    builds: BuildService


Serve = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def serve(registry_server: RegistryServer, redis_server: RedisServer, base_image_tar: Path, key_prefix: str) -> Serve:
    """Starts a registry-pusher for an engine, and more roles by their names."""

    def settings(engine: EngineServer) -> Settings:
        return Settings(
            redis_url=redis_server.url,
            key_prefix=key_prefix,
            host_engine_url=engine.url,
            registry_url=registry_server.url,
            registry_address=registry_server.address,
            registry_storage=str(registry_server.storage),
            collect_seconds=0,
            scrub_bytes_per_second=0,
        )

    return lambda engine, *more: _serving(settings(engine), base_image_tar, ("registry-pusher", *more))


@asynccontextmanager
async def _serving(settings: Settings, base: Path, roles: Sequence[str]) -> AsyncIterator[Site]:
    async with open_resources(settings) as opened, TaskGroup() as tasks:
        subscriptions = [one for name in roles for one in (await ROLES[name](opened)).subscriptions()]
        bus = await opened.bus()
        workers = [
            tasks.create_task(Worker(bus, one, name=f"w{number}").run()) for number, one in enumerate(subscriptions)
        ]
        await ensure_base(await opened.host_engine(), base)
        beats = HeartbeatSender(bus=bus, prefix=settings.key_prefix, roles=list(roles), host="test", pid=1)
        workers.append(tasks.create_task(beats.run()))
        await bus.beat(opened.streams.host_alive(await opened.identity().get()), b"{}", 600.0)
        asking = RequestReplyClient(bus=bus, streams=opened.streams, source="test", within_seconds=120.0)
        engine, registry = await opened.host_engine(), await opened.registry()
        yield Site(engine, registry, asking, bus, opened.streams, await opened.build())
        for one in workers:
            one.cancel()


@pytest.mark.parametrize("kind", ["machine", "28.5-containerd"])
async def test_images_are_taken_up_freed_and_brought_back(
    kind: str,
    engine_servers: Callable[[str], EngineServer],
    registry_server: RegistryServer,
    serve: Serve,
    unique: str,
) -> None:
    """On a classic host and on one with containerd's store: with the same content, and the one in use stays. A build
    whose base was freed brings it back."""
    server = engine_servers(kind)
    name, used = f"docker.io/{unique}/app:1", f"docker.io/{unique}/used:1"
    async with serve(server, "tracker") as site:
        image = await build(site.engine, name, {"a": os.urandom(100_000)})
        await build(site.engine, used, {"b": os.urandom(1000)})
        server.docker("create", "--name", f"user-{unique}", f"{unique}/used:1", "true")
        patterns = (f"{unique}/*",)

        planned = await adoption(site.asking, AdoptRequested(patterns=patterns, origin="host", dry_run=True))
        assert (planned.new, planned.present) == (2, 0)
        assert planned.missing_bytes > 100_000
        kept = await reclaimed(site.asking, ReclaimRequested(patterns=patterns))
        assert [one.freed for one in kept.images] == [False, False]  # the registry has neither
        while (await adoption(site.asking, AdoptRequested(patterns=patterns, origin="host"))).present < 2:
            pass  # the pushes that it asked for are under way

        freed = await reclaimed(site.asking, ReclaimRequested(patterns=patterns))
        assert {one.reference: one.freed for one in freed.images} == {name: True, used: False}
        assert freed.freed_bytes > 100_000
        assert await site.engine.inspect(name) is None
        assert await site.engine.inspect(used) is not None

        back = await fetched(site.asking, FetchRequested(reference=name))
        there = await site.engine.inspect(name)
        assert there is not None
        assert there.diff_ids == image.diff_ids
        assert image.image_id in (None, back.image_id)
        assert not [one for one in (*there.references, *there.repo_digests) if registry_server.address in one]
        server.docker("rm", f"user-{unique}")
        await site.engine.untag(name)
        await _until(lambda: _entry(site, name))
        lines: list[str] = []
        context = tar_of({"Dockerfile": f"ARG T=1\nFROM {unique}/app:$T\nCOPY x /x\n".encode(), "x": b"x"})
        built = await site.builds.build(
            chunks(context), reference=f"{unique}/built", origin="test", push="never", on_line=lines.append
        )
        assert f"bringing {name} back from the registry" in lines
        there = await site.engine.inspect(built.reference)
        assert there is not None
        assert there.diff_ids[: len(image.diff_ids)] == image.diff_ids
        await site.engine.untag(built.reference)
        await site.engine.untag(name)
        await site.engine.untag(used)


async def test_what_docker_pushed_under_upstreams_name_is_taken_up(
    host_engine_server: EngineServer, registry_server: RegistryServer, serve: Serve, unique: str
) -> None:
    """Its manifest answers under our name as well, byte for byte."""
    async with serve(host_engine_server) as site:
        pushed = f"{registry_server.address}/{unique}:1"
        await build(site.engine, pushed, {"a": os.urandom(1000)})
        host_engine_server.docker("push", pushed)
        await site.engine.untag(pushed)
        request = AdoptRequested(patterns=(f"docker.io/library/{unique}:*",), origin="registry")
        said = await adoption(site.asking, request)
        assert [(one.state, one.found_as) for one in said.images] == [("new", f"{unique}:1")]
        theirs, ours = [await site.registry.manifest(one, "1") for one in (unique, f"library/{unique}")]
        assert theirs is not None
        assert ours is not None
        assert ours[1].content == theirs[1].content
        back = await fetched(site.asking, FetchRequested(reference=f"docker.io/library/{unique}:1"))
        assert back.image_id == ours[1].body.config.digest
        await site.engine.untag(f"docker.io/library/{unique}:1")


async def test_a_layer_that_only_a_range_has_repairs_the_registry(
    engine_servers: Callable[[str], EngineServer], registry_server: RegistryServer, serve: Serve, unique: str
) -> None:
    """A scrub finds it damaged, the host's engine has it no more, and a range that the agent pool reaches gives it."""
    there = engine_servers("28.5-containerd")
    name, storage = f"docker.io/{unique}/app:1", RegistryStorage(registry_server.storage)
    async with (
        serve(engine_servers("machine"), "agent-pool", "collector", "tracker") as site,
        DockerEngine.open(there.url) as engine,
    ):
        keys, ranges = ReadModelKeys(site.streams.prefix), RangeKeys(site.streams.prefix)
        image = await build(site.engine, name, {"a": os.urandom(300_000)})
        await site.bus.publish(site.streams.images, _envelope(PushRequested(reference=name)))
        entry = await _until(lambda: _entry(site, name))
        async with site.engine.save([name]) as archive, engine.load(archive) as lines:
            async for _ in lines:
                pass
        await site.engine.untag(name)
        place = EnginePlace(range_id="r1", engine_url=there.url, deployment_id="d", since=entry.pushed_at)
        held = RangeInventory(range_id="r1", images={name: None})
        records = (ranges.place("r1").write(place, expected=ANY), keys.holdings("r1").write(held, expected=ANY))
        await site.bus.commit(Outcome(records=records, index=(IndexWrite(ranges.places, "r1", 1.0),)))

        digest = image.diff_ids[-1].removeprefix("sha256:")
        flip(storage.folder(digest) / "data")
        ended = await collect(site.bus, site.streams, CollectRequested(scrub=True), source="test")
        assert f"sha256:{digest}" in ended.damaged

        async def repaired() -> bool | None:
            return await asyncio.to_thread(storage.is_intact, digest)

        assert await _until(repaired)
        found = await site.registry.manifest(entry.repository, entry.tag)
        assert found is not None
        assert (found[0].digest, found[1].body.config.digest) == (entry.manifest_digest, entry.image_id)
        await engine.untag(name)


def _envelope(message: Message) -> Envelope:
    return Envelope(message=message, source="test", subject="test")


async def _entry(site: Site, reference: str) -> RegistryEntry | None:
    return (await ReadModelKeys(site.streams.prefix).image(reference).load(site.bus)).value


async def _until(find: Callable[[], Awaitable[T | None]]) -> T:
    """What `find` gives as soon as it gives something."""
    async with asyncio.timeout(120):
        while not (found := await find()):  # noqa: ASYNC110 - what is waited for is on a disk, or in Redis
            await asyncio.sleep(0.1)
    return found
