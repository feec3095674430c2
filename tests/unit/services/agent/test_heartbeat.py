"""The agent's heart: it announces its engine, and beats while that answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from events.messages import AgentStarted, ImagesChanged
from services.adapters.memory_engine import MemoryEngine
from services.core.images.image import EngineImage
from tests.unit.services.agent.placer import Placer
from tests.unit.services.agent.scene import BASE, RANGE, REFERENCE, Scene, until


async def _announcement(scene: Scene, number: int) -> AgentStarted:
    async with asyncio.timeout(10):
        async for entry in scene.bus.tail([scene.streams.outbox(RANGE)], after="0"):
            message = entry.envelope.message if entry.envelope else None
            if isinstance(message, AgentStarted):
                number -= 1
                if not number:
                    return message
    raise AssertionError("the outbox ended")


async def _beat(scene: Scene) -> dict[str, str]:
    async with asyncio.timeout(10):
        while True:
            [beat] = await scene.bus.beats([scene.streams.alive(RANGE)])
            if beat is not None:
                return dict(json.loads(beat))
            await asyncio.sleep(0.01)


async def test_an_agent_announces_its_engine_and_images() -> None:
    """Version, store, abilities and content of the engine are said at the start."""
    scene = Scene()
    image = scene.engine.add_image(REFERENCE, [BASE])
    async with scene.listening():
        said = await _announcement(scene, 1)
        beat = await _beat(scene)
    assert (said.range_id, said.engine_id, said.store) == (RANGE, "memory", "classic")
    assert said.abilities == ("zstd", "thin_docker")
    assert [(one.references, one.diff_ids, one.image_id) for one in said.images] == [
        ((REFERENCE,), image.diff_ids, image.local_id)
    ]
    assert (beat["engine_id"], beat["engine_version"]) == ("memory", "26.1.5")
    assert beat["incarnation"]
    assert beat["at"]


async def test_a_range_recreated_empty_is_announced_anew() -> None:
    """Another engine id is another engine."""
    scene = Scene()
    async with scene.listening():
        await _announcement(scene, 1)
        scene.engine.engine_id = "recreated"
        said = await _announcement(scene, 2)
    assert said.engine_id == "recreated"


async def test_the_heart_stops_with_the_engine_and_both_come_back() -> None:
    """While the engine was away its content may have changed, so it is announced again."""
    scene = Scene()
    async with scene.listening():
        await _announcement(scene, 1)
        await _beat(scene)
        scene.engine.away = True
        await until(lambda: _silent(scene))
        scene.engine.away = False
        await _beat(scene)
        assert (await _announcement(scene, 2)).engine_id == "memory"


async def _silent(scene: Scene) -> bool:
    return await scene.bus.beats([scene.streams.alive(RANGE)]) == [None]


async def test_an_engine_that_is_restarted_to_take_layers_is_not_announced_again() -> None:
    """It is asked nothing meanwhile, so it is not noticed to be down."""
    restarting = Restarting()
    scene = Scene(placer=restarting)
    async with scene.listening():
        await _announcement(scene, 1)
        async with restarting.open:
            scene.engine.away = True
            await until(lambda: restarting.waiting > 0)
            scene.engine.away = False
        await until(lambda: restarting.waiting == 0)
        await _beat(scene)
        scene.engine.engine_id = "recreated"
        assert (await _announcement(scene, 2)).engine_id == "recreated"


class Restarting(Placer):
    """A placer that restarts its engine while `open` is held."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Lock()
        self.waiting = 0

    @asynccontextmanager
    async def using(self) -> AsyncIterator[None]:
        self.waiting += 1
        async with self.open:
            self.waiting -= 1
            yield


async def test_no_beat_without_an_engine() -> None:
    """An agent whose engine never answered is not alive for anybody; it announces itself once the engine is there."""
    scene = Scene()
    scene.engine.away = True
    async with scene.listening():
        for _ in range(5):
            assert await _silent(scene)
            await asyncio.sleep(0.05)
        scene.engine.away = False
        assert (await _announcement(scene, 1)).range_id == RANGE


async def test_what_somebody_else_did_to_the_engines_images_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image brought by hand, then its second name; once each, however often the agent looks."""
    scene, images, looks = Scene(), MemoryEngine.images, asyncio.Semaphore(0)

    async def seen(engine: MemoryEngine) -> list[EngineImage]:
        found = await images(engine)
        looks.release()
        return found

    monkeypatch.setattr(MemoryEngine, "images", seen)
    async with scene.listening():
        await _announcement(scene, 1)
        scene.engine.add_image(REFERENCE, [BASE])
        (first,) = (await _changes(scene, 1))[0].images
        assert first.references == (REFERENCE,)
        assert first.size_bytes > 0
        while not looks.locked():
            await looks.acquire()
        for _ in range(3):
            await looks.acquire()
        await scene.engine.tag(REFERENCE, "docker.io/library/other:1")
        changed = await _changes(scene, 2)
    assert [one.images[0].references for one in changed] == [(REFERENCE,), ("docker.io/library/other:1", REFERENCE)]


async def _changes(scene: Scene, number: int) -> list[ImagesChanged]:
    found: list[ImagesChanged] = []
    async with asyncio.timeout(10):
        async for entry in scene.bus.tail([scene.streams.outbox(RANGE)], after="0"):
            message = entry.envelope.message if entry.envelope else None
            if isinstance(message, ImagesChanged):
                found.append(message)
                if len(found) == number:
                    return found
    raise AssertionError("the outbox ended")
