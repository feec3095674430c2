"""Which content a host's engine has that cannot tell it."""

from __future__ import annotations

import asyncio

import pytest

from services.adapters.memory_engine import MemoryEngine
from services.adapters.save_stream import SaveStream
from services.core.images.image import EngineImage
from services.core.images.manifests import sha256
from services.errors import LayerUnreadable
from services.registry_pusher.host_content import HostContent
from tests.unit.services.layer_twins import TwinSource, layer

pytestmark = pytest.mark.faked_time


class Host:
    """An engine on a containerd store with one image, and a source that counts how often it is read."""

    def __init__(self) -> None:
        self.engine = MemoryEngine(store="containerd")
        self.image = self.engine.add_image("app:1", [layer("one")])
        self.image_id = sha256(self.engine.config("app:1"))
        self.source = CountingSource(self.engine)


class CountingSource(TwinSource):
    """`silent` never answers, `unreadable` says that it cannot."""

    silent = False
    unreadable = False
    reads = 0

    async def config(self, image: EngineImage) -> bytes:
        self.reads += 1
        await asyncio.sleep(1)
        if self.silent:
            await asyncio.Event().wait()
        if self.unreadable:
            raise LayerUnreadable("it is not mounted")
        return await super().config(image)


async def test_an_engine_that_tells_is_believed() -> None:
    """Nothing is read."""
    host = Host()
    classic = MemoryEngine().add_image("app:1", [layer("one")])
    assert await HostContent([host.source]).image_id(classic) == classic.image_id
    assert host.source.reads == 0


async def test_the_config_is_read_once_for_all_who_ask() -> None:
    """At the same time or later: it is one reading."""
    host = Host()
    content = HostContent([host.source])
    together = await asyncio.gather(*(content.image_id(host.image) for _ in range(5)))
    assert {*together, await content.image_id(host.image)} == {host.image_id}
    assert host.source.reads == 1


async def test_a_save_is_enough() -> None:
    """Where nothing is mounted, the config comes out of `docker save`."""
    host = Host()
    host.source.unreadable = True
    assert await HostContent([host.source, SaveStream(host.engine)]).image_id(host.image) == host.image_id


async def test_a_reading_that_takes_too_long_is_ended_and_rests() -> None:
    """Nobody can tell then; it is tried again after a while, and not at every look."""
    host = Host()
    host.source.silent = True
    content = HostContent([host.source], timeout_seconds=5, rest_seconds=60)
    async with asyncio.timeout(6):
        assert await content.image_id(host.image) is None
    assert await content.image_id(host.image) is None
    assert host.source.reads == 1
    host.source.silent = False
    await asyncio.sleep(61)
    assert await content.image_id(host.image) == host.image_id
