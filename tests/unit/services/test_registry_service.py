"""The registry for Python code of other services, on fakes: what is enough, and what is an error."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from events.memory.bus import MemoryBus
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.images import prompts
from services.errors import BadInput, EngineUnavailable
from services.queries.statistics import Statistics
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_service import RegistryService
from tests.unit.services.layer_twins import INDEX, layer, twin_push


class House:
    """A host's engine with one image, a registry and the service between."""

    def __init__(self) -> None:
        self.registry, self.bus = MemoryRegistry(), MemoryBus()
        self.engine = MemoryEngine(registries={self.registry.address: self.registry})
        self.engine.add_image("team/app:1", [layer("a")])
        self.service = RegistryService(
            push=twin_push(self.engine, self.registry, self.bus),
            registry=self.registry,
            encodings=LayerEncodings(bus=self.bus, prefix="t"),
            statistics=Statistics(registry=self.registry),
            bus=self.bus,
            streams=Streams("t"),
            source="test",
        )


@pytest.fixture
def house() -> House:
    return House()


async def test_what_the_registry_has_is_enough_while_the_hosts_engine_is_away(house: House) -> None:
    """An image that is in already needs no engine; one that is not does, and that is the error."""
    await house.service.push_image("team/app:1")
    house.engine.away = True
    assert await house.service.ensure_image_in_registry("team/app:1")
    with pytest.raises(EngineUnavailable):
        await house.service.ensure_image_in_registry("team/never:1")


async def test_an_index_exists(house: House) -> None:
    """Some program left a manifest list under the tag: that is something; and the list of images goes on."""
    house.registry.foreign["team/multi", "1"] = INDEX
    assert await house.service.image_exists("team/multi:1")
    await house.service.push_image("team/app:1")
    assert [entry["tags"] for entry in await house.service.list_images()] == [["1"], ["1"]]


async def test_a_push_answers_the_question_whether_to_push(house: House) -> None:
    """As one by the registry-pusher does: nobody is asked for what is there."""
    name = "docker.io/team/app:1"
    prompt = prompts.Prompt(id=prompts.prompt_id(name), reference=name, image_id="sha256:0", asked_at=datetime.now(UTC))
    await house.bus.commit(prompts.asked("t", prompt))
    assert await house.bus.members(prompts.prompt_index("t")) == [prompt.id]
    await house.service.push_image("team/app:1")
    assert await house.bus.members(prompts.prompt_index("t")) == []


async def test_a_progress_callback_that_raises_breaks_nothing(house: House) -> None:
    """It is called once; the push is done and said, and the next one is told that it is there."""
    called: list[str] = []

    def progress(told: dict[str, object]) -> None:
        called.append(str(told["phase"]))
        raise ZeroDivisionError

    assert await house.service.push_image("team/app:1", progress_callback=progress)
    assert called == ["checking"]
    assert await house.service.image_exists("team/app:1")
    assert await house.service.ensure_image_in_registry("team/app:1", progress_callback=progress)


async def test_another_threads_loop_is_told_what_to_do(house: House) -> None:
    """Instead of a failure somewhere deep in a connection."""
    assert not await house.service.image_exists("team/app:1")

    def elsewhere() -> str:
        with pytest.raises(BadInput) as raised:
            asyncio.run(house.service.push_image("team/app:1"))
        return f"{raised.value.code}: {raised.value}"

    text = await asyncio.to_thread(elsewhere)
    assert text.startswith("wrong_event_loop: ")
    assert "run_coroutine_threadsafe" in text
