"""How often an agent lists the images of its engine."""

from __future__ import annotations

import asyncio

import pytest

from services.adapters.memory_engine import MemoryEngine
from services.agent.listed_layers import ListedLayers
from services.core.images.image import EngineImage


class _Engine(MemoryEngine):
    """One whose listing takes a part of a second for each image, as containerd's store does."""

    def __init__(self) -> None:
        super().__init__(store="containerd")
        self.now = 0.0
        self.listings = 0

    async def images(self) -> list[EngineImage]:
        self.listings += 1
        found = await super().images()
        self.now += 0.006 * len(found)
        return found


async def _layers(listed: ListedLayers) -> list[tuple[str, ...]]:
    return [image.diff_ids for image in await listed.known()]


async def test_three_hundred_transfers_list_a_few_times() -> None:
    """A tenth of the time goes into listings, however many images there are, and what was brought is known at once."""
    engine = _Engine()
    listed = ListedLayers(engine, clock=lambda: engine.now)
    for number in range(300):
        known = await _layers(listed)
        assert len(known) == number
        image = engine.add_image(f"docker.io/library/app:{number}", [b"%d" % number])
        listed.note(image.diff_ids)
        assert image.diff_ids in await _layers(listed)
        engine.now += 0.2
    assert engine.listings <= 25
    assert engine.now <= 300 * 0.2 * 1.15


async def test_a_listing_that_takes_no_time_is_made_each_time() -> None:
    """A classic store's: what somebody else brought is seen at once."""
    engine = _Engine()
    listed = ListedLayers(engine, clock=lambda: 0.0)
    for number in range(3):
        engine.add_image(f"docker.io/library/app:{number}", [b"%d" % number])
        assert len(await listed.images()) == number + 1


async def test_what_turned_out_to_be_wrong_is_listed_anew() -> None:
    """After an archive that the engine refused for want of layers."""
    engine = _Engine()
    listed = ListedLayers(engine, clock=lambda: engine.now)
    engine.add_image("docker.io/library/app:1", [b"1"])
    assert len(await _layers(listed)) == 1
    await engine.untag("docker.io/library/app:1")
    assert len(await _layers(listed)) == 1
    listed.forget()
    assert await _layers(listed) == []


async def test_transfers_side_by_side_share_a_listing() -> None:
    """Whoever comes while one is made waits for it."""
    engine = _Engine()
    listed = ListedLayers(engine, clock=lambda: engine.now)
    engine.add_image("docker.io/library/app:1", [b"1"])
    await asyncio.gather(*(listed.known() for _ in range(8)))
    assert engine.listings == 1


async def test_what_came_while_it_was_listed_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing may have missed it."""
    engine = _Engine()
    listed = ListedLayers(engine, clock=lambda: engine.now)

    async def images() -> list[EngineImage]:
        listed.note(("sha256:late",))
        return []

    monkeypatch.setattr(engine, "images", images)
    assert await _layers(listed) == [("sha256:late",)]
