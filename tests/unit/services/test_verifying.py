"""What a range has against what it should have, over the twins."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from events.bus import Outcome, RecordWrite
from events.messages import PresentImage
from services.adapters.memory_archives import tar_of
from services.adapters.memory_engine import MemoryEngine
from services.core.holdings import HoldingKeys, Holdings
from services.core.images import EngineImage
from services.core.ranges import KnownRange, RangeKeys, WantedImage, WantedImages
from services.errors import NotFound
from services.ports import Engine, Registry
from services.verifying import Verifier
from tests.unit.services.twins import STREAMS, World

WEB, DB = "docker.io/library/web:1", "docker.io/library/db:1"
THEN = datetime(2026, 1, 2, tzinfo=UTC)


def _verifier(world: World) -> Verifier:
    async def engine() -> Engine:
        return world.engine

    async def registry() -> Registry:
        return world.registry

    return Verifier(speaker=world.bus, streams=STREAMS, engine=engine, registry=registry)


async def _store(world: World, key: str, value: object) -> None:
    await world.bus.commit(Outcome(records=(RecordWrite(key, msgspec.json.encode(value)),)))


async def _want(world: World, **images: EngineImage) -> None:
    wanted = {
        name: WantedImage(reference=name, image_id=one.image_id or "", diff_ids=one.diff_ids, deployment_id="d1")
        for name, one in ((f"docker.io/library/{short}:1", one) for short, one in images.items())
    }
    await _store(world, RangeKeys(STREAMS.prefix).wanted("r1"), WantedImages(range_id="r1", images=wanted))


async def _known(world: World, *images: PresentImage) -> None:
    known = KnownRange(
        range_id="r1",
        engine_id="e",
        engine_version="28.5.1",
        store="containerd",
        platform="linux/amd64",
        started_at=THEN,
        images=images,
    )
    await _store(world, RangeKeys(STREAMS.prefix).known("r1"), known)


async def test_an_engine_is_compared_by_content() -> None:
    """The right content, other content under the name, and nothing there."""
    world, there = World(), MemoryEngine()
    web = there.add_image("web:1", [tar_of({"f": b"1"})])
    there.add_image("db:1", [tar_of({"f": b"2"})])
    other = world.engine.add_image("db:1", [tar_of({"f": b"other"})])
    await _want(world, web=web, db=other, gone=other)
    result = await _verifier(world).verify("r1", asked=there)
    assert [(one.reference, one.verdict) for one in result.verdicts] == [
        (DB, "other content"),
        ("docker.io/library/gone:1", "missing"),
        (WEB, "ok"),
    ]
    assert result.as_of is None
    assert not result.well


async def test_the_records_are_as_old_as_the_last_word() -> None:
    """What arrived after the agent's start counts; its time is told."""
    world = World()
    web = world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    await _want(world, web=web)
    await _known(world)
    assert [one.verdict for one in (await _verifier(world).verify("r1")).verdicts] == ["missing"]
    later = THEN + timedelta(hours=1)
    holdings = Holdings(range_id="r1", images={WEB: web.image_id}, heard_at=later)
    await _store(world, HoldingKeys(STREAMS.prefix).holdings("r1"), holdings)
    result = await _verifier(world).verify("r1")
    assert (result.well, result.as_of) == (True, later)


async def test_layers_decide_where_the_range_cannot_tell_the_config() -> None:
    """A containerd store announces diff IDs only, and the read model keeps the name only."""
    world = World()
    web = world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    await _want(world, web=web)
    await _known(world, PresentImage(references=(WEB,), diff_ids=web.diff_ids))
    await _store(world, HoldingKeys(STREAMS.prefix).holdings("r1"), Holdings(range_id="r1", images={WEB: None}))
    assert (await _verifier(world).verify("r1")).well


async def test_an_image_never_deployed_is_what_the_host_has_or_the_registry() -> None:
    """With both away nobody knows, which is not well."""
    world, there = World(), MemoryEngine()
    web = there.add_image("web:1", [tar_of({"f": b"1"})])
    there.registries = {world.registry.address: world.registry}
    name = f"{world.registry.address}/library/web:1"
    await there.tag("web:1", name)
    async with there.push(name) as lines:
        assert [line async for line in lines]
    verifier = _verifier(world)
    from_registry = await verifier.verify("r1", ["web:1"], asked=there)
    assert [(one.verdict, one.wanted) for one in from_registry.verdicts] == [("ok", web.image_id)]
    world.engine.add_image("web:1", [tar_of({"f": b"newer"})])
    assert [one.verdict for one in (await verifier.verify("r1", [WEB], asked=there)).verdicts] == ["other content"]
    world.engine.away = world.registry.away = True
    unknown = await verifier.verify("r1", [WEB, "web:1"], asked=there)
    assert [one.verdict for one in unknown.verdicts] == ["unknown"]


async def test_a_range_that_never_spoke_is_not_found() -> None:
    """With the way to ask its engine instead."""
    with pytest.raises(NotFound, match="--engine-url"):
        await _verifier(World()).verify("nowhere")
