"""Images that only a range still has: which ranges are asked, and what of them counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from events.bus import Delivery, IndexWrite, Outcome, RecordWrite
from events.envelope import Envelope
from events.messages import Failure, ImagePushed, ImagePushFailed
from events.records import ANY
from services.adapters.memory_engine import MemoryEngine
from services.adapters.save_stream import SaveStream
from services.core.images.image import EngineImage
from services.core.images.read_model import RangeInventory, ReadModelKeys, RegistryEntry
from services.core.ranges.ranges import EnginePlace, RangeKeys
from services.errors import EngineUnavailable, LayerUnreadable
from services.registry_pusher.range_push import RangePush
from services.resources import open_resources
from services.settings import Settings
from tests.images import tar_of
from tests.unit.services.twins import STREAMS, Cluster

NAME = "docker.io/library/web:1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Ranges:
    """Engines of ranges by their address, and what is known of them."""

    world: Cluster = field(default_factory=Cluster)
    engines: dict[str, MemoryEngine] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ranges: int = 0

    def engine(self, _: Settings, url: str) -> Any:
        if url.startswith("unix:"):
            return nullcontext(self.world.engine)
        self.asked.append(url)
        if url not in self.engines:
            raise EngineUnavailable(f"nobody answers at {url}")
        return nullcontext(self.engines[url])

    async def add(self, range_id: str, image_id: str | None, engine: MemoryEngine | None) -> None:
        """A range that is said to have `image_id` under NAME."""
        self.ranges += 1
        url = f"tcp://172.30.1.{self.ranges}:2375"
        if engine is not None:
            self.engines[url] = engine
        place = EnginePlace(range_id=range_id, engine_url=url, deployment_id="d", since=NOW)
        held = RangeInventory(range_id=range_id, images={NAME: image_id})
        keys = RangeKeys("test")
        await self._write(
            keys.place(range_id).write(place, expected=ANY),
            ReadModelKeys("test").holdings(range_id).write(held, expected=ANY),
            index=IndexWrite(keys.places, range_id, float(self.ranges)),
        )

    async def recorded(self, image: EngineImage, **more: Any) -> None:
        """What the registry had under NAME."""
        entry = RegistryEntry(
            reference=NAME,
            repository="library/web",
            tag="1",
            manifest_digest="sha256:" + "a" * 64,
            image_id=image.image_id or "",
            layers=1,
            pushed_at=NOW,
            **{"size_bytes": 10_000, **more},
        )
        await self._write(ReadModelKeys("test").image(NAME).write(entry, expected=ANY))

    async def _write(self, *records: RecordWrite, index: IndexWrite | None = None) -> None:
        await self.world.bus.commit(Outcome(records=records, index=(index,) if index else ()))

    @asynccontextmanager
    async def pushes(self, tmp_path: Path) -> AsyncIterator[RangePush]:
        settings = Settings(key_prefix="test", spool_folder=str(tmp_path), engine_networks="172.30.1.0/24")
        async with open_resources(settings, replace(self.world.adapters, engine=self.engine)) as opened:
            yield await opened.range_push()


async def _failed(pushes: RangePush, code: str = "not_found") -> list[ImagePushed]:
    message = ImagePushFailed(reference=NAME, error=Failure(code=code, message="no such image"))
    delivery: Delivery[ImagePushFailed] = Delivery(
        Envelope(message=message, source="t", subject=NAME), STREAMS.images, "1-0"
    )
    registered = pushes.subscription().handlers.find(ImagePushFailed)
    assert registered is not None
    outcome = await registered.handler(delivery)
    assert outcome is not None
    return [post.envelope.message for post in outcome.posts if isinstance(post.envelope.message, ImagePushed)]


async def test_the_first_range_that_gives_the_recorded_content_repairs_it(tmp_path: Path) -> None:
    """One that is away, and one that has other content than it says, are passed by."""
    ranges, good, bad = Ranges(), MemoryEngine(engine_id="good"), MemoryEngine(engine_id="bad")
    image = good.add_image("web:1", [tar_of({"f": b"1"})])
    bad.add_image("web:1", [tar_of({"f": b"evil"})])
    await ranges.recorded(image)
    await ranges.add("away", image.image_id, None)
    await ranges.add("lies", image.image_id, bad)
    await ranges.add("other", "sha256:" + "0" * 64, bad)
    await ranges.add("has", None, good)
    async with ranges.pushes(tmp_path) as pushes:
        (pushed,) = await _failed(pushes)
        assert (pushed.image_id, pushed.reference) == (image.image_id, NAME)
        assert len(ranges.asked) == 3
    found = await ranges.world.registry.manifest("library/web", "1")
    assert found is not None
    assert found[1].body.config.digest == image.image_id


@pytest.mark.parametrize("case", ["another failure", "never in the registry", "no image", "too long"])
async def test_what_is_not_asked_of_a_range(tmp_path: Path, case: str) -> None:
    """A failure of another kind, a name that the registry never had, an index; nor is more read than it can have."""
    ranges, engine = Ranges(), MemoryEngine(engine_id="there")
    image = engine.add_image("web:1", [tar_of({"f": b"1" * 1000})])
    if case != "never in the registry":
        await ranges.recorded(image, kind="other" if case == "no image" else "image")
    await ranges.add("r1", image.image_id, engine)
    async with ranges.pushes(tmp_path) as pushes:
        if case == "too long":
            pushes._push_from = _short(pushes._push_from)
        assert await _failed(pushes, "no_space" if case == "another failure" else "not_found") == []
    assert bool(ranges.asked) == (case == "too long")
    assert await ranges.world.registry.manifest("library/web", "1") is None


def _short(push_from: Any) -> Any:
    return lambda engine, _: push_from(engine, 500)


async def test_an_archive_longer_than_its_limit_is_not_read_to_its_end() -> None:
    """An engine that is not trusted could send for ever."""
    engine = MemoryEngine(engine_id="there")
    image = engine.add_image("web:1", [tar_of({"f": bytes(100_000)})])

    async def read() -> None:
        async with SaveStream(engine, limit_bytes=50_000).layer(image, image.diff_ids[0]) as chunks:
            async for _ in chunks:
                pass

    with pytest.raises(LayerUnreadable, match="more than 50000 bytes"):
        await read()
