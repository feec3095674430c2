"""Images that only a range still has: which ranges are asked, and what of them counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from events.bus import Delivery, IndexWrite, Outcome, RecordWrite
from events.envelope import Envelope
from events.messages import Failure, ImagePushed, ImagePushFailed, SaveRequested
from events.records import ANY
from services.adapters.memory_engine import MemoryEngine
from services.adapters.save_stream import SaveStream
from services.agent.image_sending import ImageSending
from services.core.images.image import EngineImage, Store
from services.core.images.manifests import sha256
from services.core.images.read_model import RangeInventory, ReadModelKeys, RegistryEntry, present
from services.core.ranges.ranges import DesiredImage, DesiredImages, EnginePlace, KnownRange, RangeKeys
from services.errors import EngineUnavailable, LayerUnreadable
from services.ports import Chunks
from services.registry_pusher import range_push
from services.registry_pusher.range_push import RangePush
from services.resources import open_resources
from services.settings import Settings
from tests.images import tar_of
from tests.laboratory import free_port
from tests.unit.services.twins import STREAMS, Cluster, chunks

NAME = "docker.io/library/web:1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Ranges:
    """Engines of ranges by their address, and what is known of them."""

    world: Cluster = field(default_factory=Cluster)
    engines: dict[str, MemoryEngine] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    sending: set[asyncio.Task[Outcome]] = field(default_factory=set)
    port: int = field(default_factory=free_port)
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

    async def add_agent(self, range_id: str, image: EngineImage, engine: MemoryEngine, **more: Any) -> None:
        """A range whose own agent is said to have `image` under NAME; `more` of what it said of itself."""
        said = {"gives_images": True, "store": "classic", "images": present([image]), **more}
        known = KnownRange(
            range_id=range_id, engine_id="e", engine_version="25", platform="linux/amd64", started_at=NOW, **said
        )
        held = RangeInventory(range_id=range_id, images={NAME: image.image_id})
        keys, bus, publish = RangeKeys("test"), self.world.bus, self.world.bus.publish
        await self._write(
            keys.known(range_id).write(known, expected=ANY),
            ReadModelKeys("test").holdings(range_id).write(held, expected=ANY),
            index=IndexWrite(keys.known_index, range_id, 1.0),
        )
        await bus.beat(STREAMS.alive(range_id), b"alive", 60.0)

        async def publish_and_send(stream: str, *envelopes: Envelope) -> None:
            for one in envelopes if stream == STREAMS.inbox(range_id) else ():
                assert isinstance(one.message, SaveRequested)
                self.sent.append(range_id)
                delivery: Delivery[SaveRequested] = Delivery(one, stream, "1-0")
                self.sending.add(asyncio.create_task(ImageSending(engine, range_id).requested(delivery)))
            await publish(stream, *envelopes)

        bus.publish = publish_and_send  # type: ignore[method-assign]

    async def wanted(self, range_id: str, image: EngineImage) -> None:
        """What a deployment brought to the range."""
        desired = DesiredImage(
            reference=NAME, image_id=image.image_id or "", diff_ids=image.diff_ids, deployment_id="d", since=NOW
        )
        record = DesiredImages(range_id=range_id, images={NAME: desired})
        await self._write(RangeKeys("test").wanted(range_id).write(record, expected=ANY))

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
        settings = Settings(
            key_prefix="test",
            spool_folder=str(tmp_path),
            engine_networks="172.30.1.0/24",
            upload_listen=f"127.0.0.1:{self.port}",
            upload_url=f"http://127.0.0.1:{self.port}",
        )
        async with open_resources(settings, replace(self.world.adapters, engine=self.engine)) as opened:
            yield await opened.range_push()
        if self.sending:
            await asyncio.wait(self.sending)


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


@pytest.mark.parametrize("store", ["classic", "containerd"])
@pytest.mark.parametrize("config_is_left", [True, False])
async def test_a_range_with_an_agent_of_its_own_repairs_it(tmp_path: Path, store: Store, config_is_left: bool) -> None:
    """Its agent is asked for the archive: once where the registry still has the config, twice where it has nothing."""
    ranges, engine = Ranges(), MemoryEngine(engine_id="own", store=store)
    image = engine.add_image("web:1", [tar_of({"f": b"1"}), tar_of({"g": b"2"})])
    config = engine.config(image.local_id)
    recorded = replace(image, image_id=sha256(config))
    await ranges.recorded(recorded)
    await ranges.add_agent("r1", recorded, engine, store=store)
    if config_is_left:
        await ranges.world.registry.put_blob("library/web", sha256(config), len(config), chunks(config))
    async with ranges.pushes(tmp_path) as pushes:
        (pushed,) = await _failed(pushes)
        assert (pushed.image_id, pushed.reference) == (recorded.image_id, NAME)
    assert ranges.sent == ["r1"] * (1 if config_is_left else 2)
    for diff_id in image.diff_ids:
        assert await ranges.world.registry.blob_size("library/web", diff_id) is not None


async def test_what_a_hostile_agent_sends_changes_nothing(tmp_path: Path) -> None:
    """Other content under the right name, whatever it said that its layers are; the registry stays as it was."""
    ranges, good, evil = Ranges(), MemoryEngine(engine_id="good"), MemoryEngine(engine_id="evil")
    image = good.add_image("web:1", [tar_of({"f": b"1"})])
    forged = evil.add_image("web:1", [tar_of({"f": b"evil"})])
    await ranges.recorded(image)
    await ranges.add_agent("r1", replace(forged, image_id=image.image_id), _Lying(evil, image, forged))
    async with ranges.pushes(tmp_path) as pushes:
        assert await _failed(pushes) == []
        await ranges.wanted("r1", image)
        assert await _failed(pushes) == []
    assert ranges.sent
    assert await ranges.world.registry.manifest("library/web", "1") is None
    for digest in (*forged.diff_ids, *image.diff_ids, forged.image_id):
        assert await ranges.world.registry.blob_size("library/web", digest or "") is None


async def test_ranges_that_merely_say_so_are_asked_last(tmp_path: Path) -> None:
    """However many hostile ones there are, one to which a deployment brought the image has its turn."""
    ranges, good, empty = Ranges(), MemoryEngine(engine_id="good"), MemoryEngine(engine_id="empty")
    image = good.add_image("web:1", [tar_of({"f": b"1"})])
    await ranges.recorded(image)
    for number in range(6):
        await ranges.add_agent(f"claims-{number}", image, empty)
    await ranges.add_agent("z", image, good)
    await ranges.wanted("z", image)
    async with ranges.pushes(tmp_path) as pushes:
        assert len(await _failed(pushes)) == 1
    assert set(ranges.sent) == {"z"}


@pytest.mark.parametrize("case", ["old agent", "elsewhere", "dead", "nothing known of its layers"])
async def test_which_agents_are_not_asked(tmp_path: Path, case: str) -> None:
    """One that does not know the request, that is on another host, that is not there, or that said too little."""
    ranges, engine = Ranges(), MemoryEngine(engine_id="own")
    image = engine.add_image("web:1", [tar_of({"f": b"1"})])
    await ranges.recorded(image)
    said: dict[str, dict[str, Any]] = {
        "old agent": {"gives_images": False},
        "elsewhere": {"host": "other"},
        "nothing known of its layers": {"images": ()},
    }
    await ranges.add_agent("r1", image, engine, **said.get(case, {}))
    if case == "dead":
        await ranges.world.bus.beat(STREAMS.alive("r1"), b"gone", 0.0)
    async with ranges.pushes(tmp_path) as pushes:
        assert await _failed(pushes) == []
    assert ranges.sent == []


@pytest.mark.parametrize("case", ["another failure", "never in the registry", "no image", "too long"])
async def test_what_is_not_asked_of_a_range(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of another kind, a name that the registry never had, an index; nor is more read than it can have."""
    ranges, engine = Ranges(), MemoryEngine(engine_id="there")
    image = engine.add_image("web:1", [tar_of({"f": b"1" * 1000})])
    if case != "never in the registry":
        await ranges.recorded(image, kind="other" if case == "no image" else "image", size_bytes=125)
    await ranges.add("r1", image.image_id, engine)
    if case == "too long":
        monkeypatch.setattr(range_push, "_SPARE_BYTES", 0)
    async with ranges.pushes(tmp_path) as pushes:
        assert await _failed(pushes, "no_space" if case == "another failure" else "not_found") == []
    assert bool(ranges.asked) == (case == "too long")
    assert await ranges.world.registry.manifest("library/web", "1") is None


class _Lying(MemoryEngine):
    """An engine whose owner says that it has `image`, and sends `forged`."""

    def __init__(self, engine: MemoryEngine, image: EngineImage, forged: EngineImage) -> None:
        super().__init__(engine_id="lying")
        self._real, self._image, self._forged = engine, image, forged

    async def inspect(self, reference: str) -> EngineImage | None:
        return self._image

    @asynccontextmanager
    async def save(self, references: Sequence[str]) -> AsyncIterator[Chunks]:
        async with self._real.save([self._forged.local_id]) as archive:
            yield archive


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
