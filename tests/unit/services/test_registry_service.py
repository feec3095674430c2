"""The registry for Python code of other services, on twins: what is enough, and what is an error."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from events.memory import MemoryBus
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core import prompts
from services.errors import EngineUnavailable
from services.pushing.layer_forms import LayerForms
from services.registry_service import RegistryService
from services.statistics import Statistics
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
            forms=LayerForms(speaker=self.bus, prefix="t"),
            statistics=Statistics(registry=self.registry),
            speaker=self.bus,
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
