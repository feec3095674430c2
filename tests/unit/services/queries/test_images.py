"""The lists of images, on fakes: what the registry has of each, and what in it is no image."""

from __future__ import annotations

import pytest

from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.images.image import Store
from services.queries.images import host_images, registry_images
from tests.unit.services.layer_twins import INDEX, layer, twin_push


class House:
    """A host's engine and a registry."""

    def __init__(self, store: Store) -> None:
        self.registry = MemoryRegistry()
        self.engine = MemoryEngine(registries={self.registry.address: self.registry}, store=store)
        self.push = twin_push(self.engine, self.registry)

    async def states(self) -> dict[str, str]:
        """What is said of the registry, by short name."""
        rows = await host_images(self.engine, self.registry)
        return {row.reference.rpartition("/")[2]: row.registry for row in rows}


@pytest.fixture(params=["classic", "containerd"])
def house(request: pytest.FixtureRequest) -> House:
    return House(request.param)


async def test_each_image_of_the_host_is_compared_with_the_registrys(house: House) -> None:
    """Also where the engine does not tell the image id: there the diff IDs are compared."""
    for name in ("pushed:1", "rebuilt:1", "never:1"):
        house.engine.add_image(f"team/{name}", [layer(name)])
    await house.push.push("team/pushed:1")
    await house.push.push("team/rebuilt:1")
    house.engine.add_image("team/rebuilt:1", [layer("7")])
    house.engine.add_image("team/index:1", [layer("8")])
    house.registry.foreign["team/index", "1"] = INDEX
    assert await house.states() == {
        "pushed:1": "same",
        "rebuilt:1": "other",
        "never:1": "no",
        "index:1": "other",
        "<none>": "-",  # what was called rebuilt:1
    }
    house.registry.away = True
    assert set((await house.states()).values()) == {"away", "-"}


async def test_a_tag_that_names_no_image_is_listed_as_such(house: House) -> None:
    """An index, or anything else that some program left: the others are listed all the same."""
    house.engine.add_image("team/app:1", [layer("1")])
    pushed = await house.push.push("team/app:1")
    house.registry.foreign["team/app", "multi"] = INDEX
    house.registry.foreign["charts/web", "2"] = b"{}"
    rows = await registry_images(house.registry)
    assert [(row.repository, row.tag, row.kind, row.image_id) for row in rows] == [
        ("charts/web", "2", "other", None),
        ("team/app", "1", "image", pushed.image_id),
        ("team/app", "multi", "other", None),
    ]
