"""What is known of an export before its first byte: that there is no room, that the layer cannot be given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest

from events.bus import Outcome
from events.messages import ImageFailed
from events.records import ANY
from events.task_group import TaskGroup
from services.core.deployments.offers import offer_key
from services.core.images.image import EngineImage
from services.errors import LayerDamaged, NoSpace
from services.ports import OpenLayer
from tests.unit.services.agent.archive_server import StoreSource, StreamSource, serving
from tests.unit.services.agent.scene import BASE, TOOLS, Scene, until


async def test_no_room_for_the_spool_is_said_beforehand(tmp_path: Path) -> None:
    """507, and the same offer works once there is room."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path, limit_bytes=1000) as server:
        url, token = await server.offer(image)
        status, body = await server.get(url, token)
    assert status == 507
    assert b"may hold 1000 bytes" in body
    async with serving(scene, tmp_path) as server:
        assert (await server.get(f"{server.url}/transfers/t1", token))[0] == 200


async def test_the_room_is_given_back_after_the_last_reader(tmp_path: Path) -> None:
    """Also when nobody read to the end, and the export itself is stopped then."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path, linger_seconds=0.1) as server:
        server.source.gate = asyncio.Event()
        url, token = await server.offer(image)
        async with aiohttp.ClientSession() as session:
            response = await session.get(url, headers={"Authorization": f"Bearer {token}"})
            assert server.folder.taken_bytes > 0
            response.close()
        server.source.gate.set()
        await until(lambda: server.folder.taken_bytes == 0)


async def test_an_export_whose_reader_was_cancelled_waits_for_nobody(tmp_path: Path) -> None:
    """The offer was taken back: the room is free when its reader has gone, however long others would be waited for."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path, linger_seconds=3600) as server:
        server.source.gate = asyncio.Event()
        url, token = await server.offer(image)
        async with aiohttp.ClientSession() as session:
            response = await session.get(url, headers={"Authorization": f"Bearer {token}"})
            write = offer_key(scene.streams.prefix, "t1").delete(expected=ANY)
            await scene.bus.commit(Outcome(records=(write,)))
            assert server.folder.taken_bytes > 0
            response.close()
        await until(lambda: server.folder.taken_bytes == 0)


async def test_a_stream_that_can_never_fit_is_refused_beforehand(tmp_path: Path) -> None:
    """Its length is not known, but the engine's size of the image is: 507, and no layer was read."""
    scene = Scene()
    image = scene.build(BASE, TOOLS)
    source = StreamSource(scene.host)
    limit_bytes = len(BASE) + len(TOOLS) - 1
    async with serving(scene, tmp_path, limit_bytes=limit_bytes, source=source) as server:
        status, body = await server.get(*await server.offer(image))
    assert (status, source.passes) == (507, 0)
    assert b"more are needed" in body


async def test_a_stream_that_outgrows_its_room_waits_for_room_and_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another archive lies where its rest should: its reader gets that when the other one is gone."""
    scene = Scene()
    image = scene.build(BASE * 40)
    inspect = scene.host.inspect

    async def modest(name: str) -> EngineImage | None:
        found = await inspect(name)
        return replace(found, size_bytes=1) if found is not None else None

    monkeypatch.setattr(scene.host, "inspect", modest)
    async with (
        serving(scene, tmp_path, limit_bytes=4 << 20, source=StreamSource(scene.host)) as server,
        TaskGroup() as tasks,
    ):

        def waits() -> bool:
            try:
                server.folder.open(1).close()
            except NoSpace as full:
                return "running exports wait" in str(full)
            return False

        other = server.folder.open(2 << 20)
        reading = tasks.create_task(server.get(*await server.offer(image)))
        await until(waits)
        other.close()
        status, body = await reading
    assert status == 200
    assert len(body) > len(BASE * 40) > 3 << 20


@dataclass
class DamagedStore(StoreSource):
    """An engine that has the layer, and cannot give it."""

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        raise LayerDamaged(f"layer {diff_id} came with sparse files")


@dataclass
class RefusedStream(StreamSource):
    """`docker save` says no before its first byte."""

    @asynccontextmanager
    async def layers(self, image: EngineImage, diff_ids: Sequence[str]) -> AsyncIterator[AsyncIterator[OpenLayer]]:
        self.passes += 1
        if self.passes == 1:
            raise LayerDamaged("could not verify layer data")
        yield self._opened(diff_ids)


@pytest.mark.parametrize("kind", [DamagedStore, RefusedStream])
async def test_a_layer_that_the_engine_cannot_give_is_said_beforehand(kind: type[StoreSource], tmp_path: Path) -> None:
    """By its own reason, not as a connection that breaks; the room is free again."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path, source=kind(scene.host)) as server:
        status, body = await server.get(*await server.offer(image))
        assert server.folder.taken_bytes == 0
    assert status == 422
    assert json.loads(body)["code"] == "layer_damaged"


@dataclass
class OddStore(StoreSource):
    """A mistake of ours, once."""

    odd: bool = True

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        if self.odd:
            self.odd = False
            raise KeyError(diff_id)
        return await super().size(image, diff_id)


async def test_an_archive_that_fails_in_an_unforeseen_way_ends_alone(tmp_path: Path) -> None:
    """Its reader is told, and the next one gets its archive: the server goes on."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path, source=OddStore(scene.host)) as server:
        url, token = await server.offer(image)
        status, body = await server.get(url, token)
        assert (status, json.loads(body)["code"]) == (502, "unexpected")
        assert (await server.get(url, token))[0] == 200


async def test_an_agent_says_that_a_layer_is_damaged_and_asks_no_more(tmp_path: Path) -> None:
    """Another offer would bring the same answer: the image has failed, with that reason."""
    scene = Scene()
    image = scene.build(BASE)
    async with serving(scene, tmp_path, source=DamagedStore(scene.host)) as server, scene.listening():
        await server.offered(image)
        failed = await scene.answer()
    assert isinstance(failed, ImageFailed)
    assert (failed.error.code, failed.error.retryable) == ("layer_damaged", False)


async def test_a_damaged_layer_that_the_registry_has_is_sent(tmp_path: Path) -> None:
    """The engine's trouble is its own."""
    scene = Scene()
    image = scene.build(BASE)
    await scene.publish(image)
    async with serving(scene, tmp_path, source=DamagedStore(scene.host)) as server:
        assert (await server.get(*await server.offer(image)))[0] == 200
