"""Pushers on a real engine, registry and Redis, while images change or processes end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from events.envelope import Envelope
from events.messages import ImagePushed, ImagePushFailed, PushRequested
from events.redis.bus import RedisBus
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker
from services.adapters.engine import DockerEngine
from services.adapters.layer_store import LayerStore
from services.adapters.registry import HttpRegistry
from services.adapters.save_stream import SaveStream
from services.core.images.encodings import CodecSetting
from services.core.images.image import EngineImage
from services.core.images.manifests import sha256
from services.ports import Chunks, LayerSource, OpenLayer
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from services.registry_pusher.role import RegistryPusher
from tests.images import tar_of
from tests.integration.engines import pull
from tests.integration.test_layer_sources import load
from tests.laboratory import EngineServer, RedisServer, RegistryServer

pytestmark = pytest.mark.real
Ended = ImagePushed | ImagePushFailed


@dataclass
class House:
    """A host's engine and what replicas of the pusher need; each replica has connections of its own."""

    engine: DockerEngine
    host: EngineServer
    registry: RegistryServer
    redis: RedisServer
    streams: Streams

    @asynccontextmanager
    async def push(
        self, *sources: LayerSource, codec: CodecSetting = "raw"
    ) -> AsyncIterator[tuple[ImagePush, LayerEncodings, HttpRegistry, RedisBus]]:
        """As one process has it; every range is said to read zstd."""

        async def yes() -> bool:
            return True

        async with (
            RedisBus.open(self.redis.url, streams=self.streams) as bus,
            HttpRegistry.open(self.registry.url) as registry,
        ):
            encodings = LayerEncodings(bus=bus, prefix=self.streams.prefix)
            layers = LayerPush(
                registry=registry, sources=sources, encodings=encodings, layer_codec=codec, all_read_zstd=yes
            )
            image_push = ImagePush(
                engine=self.engine,
                registry=registry,
                sources=sources,
                layers=layers,
                engine_registry=self.registry.address,
            )
            yield image_push, encodings, registry, bus

    @asynccontextmanager
    async def pusher(self, number: int, *sources: LayerSource) -> AsyncIterator[RedisBus]:
        """A replica of the role at work."""

        async def yes(reference: str) -> bool:
            return True

        async with self.push(*sources) as (image_push, encodings, registry, bus), TaskGroup() as group:
            role = RegistryPusher(
                push=image_push,
                registry=registry,
                encodings=encodings,
                streams=self.streams,
                source=f"registry-pusher@{number}",
                auto_push=yes,
                lease_seconds=5,
            )
            workers = [group.create_task(Worker(bus, one, name=f"w{number}").run()) for one in role.subscriptions()]
            try:
                yield bus
            finally:
                for worker in workers:
                    worker.cancel()

    async def ask(self, bus: RedisBus, name: str, image_id: str | None, times: int = 1) -> list[Ended]:
        """Ask for pushes of one image; how each ended, with all that was said of it."""
        asked = PushRequested(reference=name, image_id=image_id, why="manual")
        await bus.publish(
            self.streams.images, *(Envelope(message=asked, source="test", subject=name) for _ in range(times))
        )
        ended: list[Ended] = []
        async with asyncio.timeout(30):
            async for entry in bus.tail([self.streams.images], after="0"):
                message = entry.envelope.message if entry.envelope else None
                if isinstance(message, Ended):
                    ended.append(message)
                    if len(ended) == times:
                        return ended
        raise AssertionError("the images stream ended")

    def files(self, diff_id: str) -> Path:
        """The folder in which the host's engine has the files of its (lowest) layer."""
        described = self.host.root / "image/overlay2/layerdb/sha256" / diff_id.removeprefix("sha256:")
        return self.host.root / "overlay2" / (described / "cache-id").read_text() / "diff"


@pytest.fixture
async def house(
    host_engine_server: EngineServer, registry_server: RegistryServer, redis_server: RedisServer, key_prefix: str
) -> AsyncIterator[House]:
    async with DockerEngine.open(host_engine_server.url) as engine:
        yield House(engine, host_engine_server, registry_server, redis_server, Streams(key_prefix))


class Disturbed(LayerStore):
    """The layer store of an engine to which something `happens` after the first chunk of a layer."""

    def __init__(self, host: EngineServer, happens: Callable[[], Awaitable[object]]) -> None:
        super().__init__(host.root)
        self._happens = happens
        self.happened = False

    @asynccontextmanager
    async def layer(self, image: EngineImage, diff_id: str) -> AsyncIterator[Chunks]:
        async with super().layer(image, diff_id) as chunks:
            yield self._disturbed(chunks)

    async def _disturbed(self, chunks: Chunks) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk
            if not self.happened:
                self.happened = True
                await self._happens()


def large_layer() -> bytes:
    """Twenty megabytes in two hundred files, which nothing reads in one go."""
    return tar_of({f"t/{number:03}": os.urandom(100_000) for number in range(200)})


async def test_an_image_deleted_in_the_middle_of_a_layer_fails_once_and_clearly(house: House, unique: str) -> None:
    """One event that says it is gone; nothing under the tag, no stray name in the engine, no upload left."""
    name = f"docker.io/test/{unique}:1"
    image = await load(house.engine, name, [large_layer()])
    names = house.host.names()
    source = Disturbed(house.host, lambda: house.engine.untag(name))
    async with house.pusher(1, source, SaveStream(house.engine)) as bus:
        (failed,) = await house.ask(bus, name, image.image_id)
        said = [entry async for entry in bus.tail([house.streams.images], after="0", follow=False)]
    assert (source.happened, len(said)) == (True, 2)  # the request and its failure
    assert isinstance(failed, ImagePushFailed)
    assert (failed.error.code, failed.error.retryable) == ("not_found", False)
    assert unique in failed.error.message
    assert {one for one in names if unique not in one} == house.host.names()
    async with HttpRegistry.open(house.registry.url) as registry:
        assert await registry.tags(f"test/{unique}") == []
        assert await registry.blob_size(f"test/{unique}", image.diff_ids[0]) is None
    assert uploads(house.registry, f"test/{unique}") == []


def uploads(registry: RegistryServer, repository: str) -> list[str]:
    """Uploads that were neither finished nor cancelled."""
    folder = registry.storage / "docker/registry/v2/repositories" / repository / "_uploads"
    return [str(path) for path in folder.rglob("data") if path.is_file()]


async def test_a_store_that_changes_with_the_same_size_is_refused_and_read_another_way(
    house: House, range_engine_servers: tuple[EngineServer, EngineServer], unique: str
) -> None:
    """The registry sees that the digest is another one; `docker save` gives the right bytes, and a range gets those."""
    name = f"docker.io/test/{unique}:1"
    layer = large_layer()
    image = await load(house.engine, name, [layer])
    last = house.files(sha256(layer)) / "t/199"
    right = last.read_bytes()

    async def change() -> None:
        last.write_bytes(right[::-1])

    class Restored(SaveStream):
        """As if the disk had been put in order meanwhile."""

        @asynccontextmanager
        async def layers(self, image: EngineImage, diff_ids: Sequence[str]) -> AsyncIterator[AsyncIterator[OpenLayer]]:
            last.write_bytes(right)
            async with super().layers(image, diff_ids) as opened:
                yield opened

    source = Disturbed(house.host, change)
    async with house.push(source, Restored(house.engine)) as (image_push, _, registry, _):
        pushed = await image_push.push(name)
        assert source.happened
        assert (pushed.method, pushed.layers[0].digest) == ("save", sha256(layer))
        assert pushed.sent_bytes < len(layer) + 10_000
        async with registry.open_blob(pushed.repository, sha256(layer)) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == layer
    assert uploads(house.registry, pushed.repository) == []
    async with DockerEngine.open(range_engine_servers[0].url) as engine:
        await pull(engine, f"{house.registry.address}/{pushed.repository}@{pushed.manifest_digest}")
        arrived = await engine.inspect(image.local_id)
    assert arrived is not None
    assert arrived.diff_ids == image.diff_ids


async def test_ten_requests_to_two_replicas_are_one_upload(house: House, unique: str) -> None:
    """Counted at the registry: each blob and the manifest come once; the nine others report the same image, present."""
    name = f"docker.io/test/{unique}:1"
    layers = [tar_of({f"t/{number}": os.urandom(3_000_000)}) for number in range(2)]
    image = await load(house.engine, name, layers)
    start = house.registry.log.stat().st_size
    async with house.pusher(1, LayerStore(house.host.root)) as bus, house.pusher(2, LayerStore(house.host.root)):
        ended = await house.ask(bus, name, image.image_id, times=10)
    pushed = [one for one in ended if isinstance(one, ImagePushed)]
    assert sorted(one.method for one in pushed) == ["layers"] + ["present"] * 9
    assert len({(one.manifest_digest, one.image_id, one.layers) for one in pushed}) == 1
    requests = [one for one in house.registry.requests(start) if unique in one.path and one.status < 300]
    assert len([one for one in requests if one.method == "PUT" and "/manifests/" in one.path]) == 1
    finished = [one for one in requests if one.method == "PUT" and "/uploads/" in one.path]
    assert len(finished) == len(layers) + 1  # and the config
    assert len([one for one in requests if one.method == "PATCH"]) == len(layers)


async def test_a_race_for_the_codec_of_a_layer_has_one_winner(house: House, unique: str) -> None:
    """Two processes with other settings push one layer in two images at once: it has one form, which a range reads."""
    layer = tar_of({"t/shrinks": unique.encode() * 300_000})
    names = [f"docker.io/test/{unique}-{number}:1" for number in range(2)]
    images = [await load(house.engine, name, [layer, tar_of({"t/own": os.urandom(1000)})]) for name in names]
    settings: tuple[CodecSetting, CodecSetting] = ("zstd", "raw")
    async with AsyncExitStack() as stack:
        pushes = [
            (await stack.enter_async_context(house.push(LayerStore(house.host.root), codec=setting)))[0]
            for setting in settings
        ]
        pushed = await asyncio.gather(*(push.push(name) for push, name in zip(pushes, names, strict=True)))
        encodings = [one.layers[0] for one in pushed]
        assert encodings[0] == encodings[1]
        async with house.push(LayerStore(house.host.root), codec="auto") as (third, _, registry, _):
            await house.engine.tag(names[0], f"docker.io/test/{unique}-2:1")
            assert (await third.push(f"docker.io/test/{unique}-2:1")).layers[0] == encodings[0]
            for one, image in zip(pushed, images, strict=True):
                found = await registry.manifest(one.repository, "1")
                assert found is not None
                assert [blob.digest for blob in found[1].body.layers] == [blob.digest for blob in one.layers]
                assert one.image_id == image.image_id
