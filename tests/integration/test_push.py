"""Pushing from a real engine into a real registry, and what a range's engine then gets of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from events.memory.bus import MemoryBus
from services.adapters.engine import DockerEngine
from services.adapters.layer_store import LayerStore
from services.adapters.registry import HttpRegistry
from services.errors import NotFound
from services.ports import LayerSource
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from tests.integration.engines import build, ensure_base, pull
from tests.laboratory import EngineServer, RegistryServer

MEGABYTE = 1024 * 1024
pytestmark = pytest.mark.real


class Site:
    """A host engine, a registry, and pushes between them."""

    def __init__(self, engine: DockerEngine, registry: HttpRegistry, root: Path) -> None:
        self.engine = engine
        self.registry = registry
        self.bus = MemoryBus()
        self.store = LayerStore(root)

    def push(self, *sources: LayerSource) -> ImagePush:
        return ImagePush(
            engine=self.engine,
            registry=self.registry,
            sources=sources,
            layers=LayerPush(
                registry=self.registry, sources=sources, encodings=LayerEncodings(bus=self.bus, prefix="t")
            ),
            engine_registry=self.registry.address,
        )


@pytest.fixture
async def site(
    host_engine_server: EngineServer, registry_server: RegistryServer, base_image_tar: Path
) -> AsyncIterator[Site]:
    async with (
        DockerEngine.open(host_engine_server.url) as engine,
        HttpRegistry.open(registry_server.url) as registry,
    ):
        await ensure_base(engine, base_image_tar)
        yield Site(engine, registry, host_engine_server.root)


@asynccontextmanager
async def range_engine(server: EngineServer) -> AsyncIterator[DockerEngine]:
    async with DockerEngine.open(server.url) as engine:
        yield engine


async def test_a_pushed_image_is_pulled_with_the_same_id(
    site: Site, range_engine_servers: tuple[EngineServer, EngineServer], unique: str
) -> None:
    """Read from the layer store, pushed raw, pulled by digest: another engine reports the host's image id."""
    name = f"{unique}/app:1"
    image = await build(site.engine, name, {"a": os.urandom(3 * MEGABYTE)}, {"b": b"small"})
    pushed = await site.push(site.store).push(name)
    assert (pushed.method, pushed.image_id) == ("layers", image.image_id)
    assert tuple(layer.digest for layer in pushed.layers) == image.diff_ids
    source = f"{site.registry.address}/{pushed.repository}@{pushed.manifest_digest}"
    async with range_engine(range_engine_servers[0]) as engine:
        await pull(engine, source)
        pulled = await engine.inspect(source)
    assert pulled is not None
    assert (pulled.image_id, pulled.diff_ids) == (image.image_id, image.diff_ids)


async def test_the_second_push_sends_nothing(site: Site, unique: str) -> None:
    """Not a byte of it, and the result names the same manifest."""
    name = f"{unique}/app:1"
    await build(site.engine, name, {"a": os.urandom(MEGABYTE)})
    first = await site.push(site.store).push(name)
    again = await site.push(site.store).push(name)
    assert (again.method, again.sent_bytes) == ("present", 0)
    assert (again.manifest_digest, again.layers) == (first.manifest_digest, first.layers)


async def test_a_rebuilt_tag_is_pushed_again_and_only_its_new_layer(site: Site, unique: str) -> None:
    """The registry's tag has the new content; what the old one had is not sent again."""
    name = f"{unique}/app:1"
    big = {"big": os.urandom(4 * MEGABYTE)}
    old = await build(site.engine, name, big, {"v": b"1"})
    await site.push(site.store).push(name)
    new = await build(site.engine, name, big, {"v": b"2"})
    assert new.image_id != old.image_id
    pushed = await site.push(site.store).push(name)
    assert pushed.sent_bytes < 100_000
    found = await site.registry.manifest(f"{unique}/app", "1")
    assert found is not None
    assert found[1].body.config.digest == new.image_id


async def test_a_shared_base_is_mounted(site: Site, unique: str) -> None:
    """Another image on the same base sends its own layer only, into its own repository."""
    big = {"big": os.urandom(4 * MEGABYTE)}
    await build(site.engine, f"{unique}/a:1", big)
    push = site.push(site.store)
    first = await push.push(f"{unique}/a:1")
    image = await build(site.engine, f"{unique}/b:1", big, {"own": b"x"})
    second = await push.push(f"{unique}/b:1")
    assert second.sent_bytes < 100_000
    assert second.reused_bytes >= 4 * MEGABYTE
    assert await site.registry.blob_size(f"{unique}/b", image.diff_ids[0]) == first.layers[0].size_bytes


async def test_the_engines_own_push_is_the_last_way(
    site: Site, range_engine_servers: tuple[EngineServer, EngineServer], unique: str
) -> None:
    """Without any layer source the image gets in all the same, and no name of the registry stays in the engine."""
    name = f"{unique}/app:1"
    image = await build(site.engine, name, {"a": os.urandom(MEGABYTE)})
    pushed = await site.push().push(name)
    assert (pushed.method, pushed.image_id) == ("docker_push", image.image_id)
    assert {layer.codec for layer in pushed.layers} == {"gzip"}
    assert [layer.diff_id for layer in pushed.layers] == list(image.diff_ids)
    left = await site.engine.inspect(name)
    assert left is not None
    assert left.references == (f"docker.io/{name}",)
    async with range_engine(range_engine_servers[1]) as engine:
        await pull(engine, f"{site.registry.address}/{pushed.repository}@{pushed.manifest_digest}")
        pulled = await engine.inspect(f"{site.registry.address}/{pushed.repository}@{pushed.manifest_digest}")
    assert pulled is not None
    assert pulled.image_id == image.image_id


async def test_names_with_a_registrys_host_are_kept_apart(site: Site, unique: str) -> None:
    """`host:5000/x` and Docker Hub's `x` have repositories of their own."""
    first = await build(site.engine, f"registry.example:5000/{unique}/x:1", {"a": b"1"})
    second = await build(site.engine, f"{unique}/x:1", {"a": b"2"})
    push = site.push(site.store)
    pushed = [await push.push(f"registry.example:5000/{unique}/x:1"), await push.push(f"{unique}/x:1")]
    assert [one.repository for one in pushed] == [f"registry.example_5000/{unique}/x", f"{unique}/x"]
    assert [one.image_id for one in pushed] == [first.image_id, second.image_id]


async def test_an_image_that_is_gone_is_not_found(site: Site, unique: str) -> None:
    """Removed before its turn came: a clear error, nothing in the registry."""
    await build(site.engine, f"{unique}/app:1", {"a": b"1"})
    await site.engine.untag(f"{unique}/app:1")
    with pytest.raises(NotFound, match=unique):
        await site.push(site.store).push(f"{unique}/app:1")
    assert await site.registry.tags(f"{unique}/app") == []
