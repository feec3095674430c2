"""The registry as Python code of other services uses it: composed by settings, on a real engine, registry and Redis."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from events.messages import ImagePushed
from events.redis.bus import RedisBus
from events.streams import Streams
from services.adapters.engine import DockerEngine
from services.errors import BadReference, NotFound, RedisUnavailable
from services.registry_service import RegistryService
from services.settings import Settings
from tests.integration.engines import build, ensure_base
from tests.laboratory import EngineServer, RedisServer, RegistryServer

pytestmark = pytest.mark.real


@pytest.fixture
def settings(
    host_engine_server: EngineServer, registry_server: RegistryServer, redis_server: RedisServer, key_prefix: str
) -> Settings:
    return Settings(
        redis_url=redis_server.url,
        key_prefix=key_prefix,
        host_engine_url=host_engine_server.url,
        engine_root=str(host_engine_server.root),
        registry_url=registry_server.url,
        registry_address="cyroid-registry:5000",
        registry_storage=str(registry_server.storage),
    )


@pytest.fixture
async def engine(host_engine_server: EngineServer, base_image_tar: Path) -> AsyncIterator[DockerEngine]:
    async with DockerEngine.open(host_engine_server.url) as opened:
        await ensure_base(opened, base_image_tar)
        yield opened


async def test_an_image_is_ensured_listed_and_counted(settings: Settings, engine: DockerEngine, unique: str) -> None:
    """Pushed once with progress to 100 %, then there; listed with its image id; counted; said on the bus."""
    name = f"{unique}/app:1"
    image = await build(engine, name, {"a": os.urandom(2_000_000)})
    told: list[dict[str, Any]] = []
    async with RegistryService.open(settings) as service:
        assert not await service.image_exists(name)
        assert await service.ensure_image_in_registry(name, progress_callback=told.append)
        assert await service.image_exists(name)
        assert await service.push_image(name)
        listed = [entry for entry in await service.list_images() if entry["name"] == f"{unique}/app"]
        stats = await service.get_stats()
    assert (told[0]["phase"], told[-1]["phase"], told[-1]["percent"]) == ("checking", "done", 100.0)
    assert [one["done_bytes"] for one in told] == sorted(one["done_bytes"] for one in told)
    assert [entry["tags"] for entry in listed] == [["1"]]
    assert listed[0]["images"][0]["image_id"] == image.image_id
    assert stats["healthy"]
    assert stats["images"] >= 1
    assert stats["storage_used_bytes"] >= 2_000_000
    async with RedisBus.open(settings.redis_url, streams=Streams(settings.key_prefix)) as bus:
        said = [
            entry.envelope.message
            async for entry in bus.tail([Streams(settings.key_prefix).images], after="0", follow=False)
            if entry.envelope
        ]
    assert [one.method for one in said if isinstance(one, ImagePushed)] == ["layers", "present"]


async def test_a_rebuilt_image_is_ensured_anew(settings: Settings, engine: DockerEngine, unique: str) -> None:
    """The tag exists, but not with this content: it is pushed."""
    name = f"{unique}/app:1"
    async with RegistryService.open(settings) as service:
        await build(engine, name, {"a": b"1"})
        await service.ensure_image_in_registry(name)
        image = await build(engine, name, {"a": b"2"})
        await service.ensure_image_in_registry(name)
        (entry,) = [entry for entry in await service.list_images() if entry["name"] == f"{unique}/app"]
    assert [one["image_id"] for one in entry["images"]] == [image.image_id]


async def test_what_only_the_registry_has_is_enough(settings: Settings, engine: DockerEngine, unique: str) -> None:
    """The host's image was removed; the registry still has it. With neither, it is not found."""
    name = f"{unique}/app:1"
    await build(engine, name, {"a": b"1"})
    async with RegistryService.open(settings) as service:
        await service.push_image(name)
        await engine.untag(name)
        assert await service.ensure_image_in_registry(name)
        with pytest.raises(NotFound, match=unique):
            await service.ensure_image_in_registry(f"{unique}/never:1")
        with pytest.raises(BadReference):
            await service.push_image("Upper/Case")


async def test_redis_away_is_said_so(settings: Settings, engine: DockerEngine, unique: str) -> None:
    """Nothing hangs, and the error says what to do."""
    name = f"{unique}/app:1"
    await build(engine, name, {"a": b"1"})
    nowhere = Settings(
        redis_url="redis://127.0.0.1:1/0",
        host_engine_url=settings.host_engine_url,
        registry_url=settings.registry_url,
        engine_root=settings.engine_root,
    )
    with pytest.raises(RedisUnavailable):
        async with RegistryService.open(nowhere) as service:
            await service.push_image(name)


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("nginx", "cyroid-registry:5000/library/nginx:latest"),
        ("team/app:1", "cyroid-registry:5000/team/app:1"),
        ("host:5000/name:2", "cyroid-registry:5000/host_5000/name:2"),
    ],
)
async def test_the_name_for_ranges_is_told(settings: Settings, image: str, tag: str) -> None:
    """Host and port are those that ranges reach, the colon of another registry's port is no tag."""
    async with RegistryService.open(settings) as service:
        assert service.get_registry_tag(image) == tag
