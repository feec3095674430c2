"""What a range has against what it should have, over the fakes."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from events.bus import IndexWrite, Outcome
from events.messages import PresentImage
from events.records import ANY, Key, T
from services.adapters.memory_archives import tar_of
from services.adapters.memory_engine import MemoryEngine
from services.core.images.image import EngineImage
from services.core.images.read_model import RangeInventory, ReadModelKeys
from services.core.mounts.pins import MountedBlobs, MountKeys
from services.core.mounts.problems import MountProblem
from services.core.ranges.ranges import DesiredImage, DesiredImages, KnownRange, RangeKeys
from services.errors import NotFound
from services.ports import Engine, Registry
from services.queries.unreferenced import in_range
from services.queries.verification import Verifier
from tests.unit.services.twins import STREAMS, Cluster

WEB, DB = "docker.io/library/web:1", "docker.io/library/db:1"
THEN = datetime(2026, 1, 2, tzinfo=UTC)


def _verifier(world: Cluster) -> Verifier:
    async def engine() -> Engine:
        return world.engine

    async def registry() -> Registry:
        return world.registry

    return Verifier(bus=world.bus, streams=STREAMS, engine=engine, registry=registry)


async def _store(world: Cluster, key: Key[T], value: T) -> None:
    await world.bus.commit(Outcome(records=(key.write(value, expected=ANY),)))


async def _want(world: Cluster, **images: EngineImage) -> None:
    wanted = {
        name: DesiredImage(reference=name, image_id=one.image_id or "", diff_ids=one.diff_ids, deployment_id="d1")
        for name, one in ((f"docker.io/library/{short}:1", one) for short, one in images.items())
    }
    await _store(world, RangeKeys(STREAMS.prefix).wanted("r1"), DesiredImages(range_id="r1", images=wanted))


async def _known(world: Cluster, *images: PresentImage) -> None:
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
    world, there = Cluster(), MemoryEngine()
    web = there.add_image("web:1", [tar_of({"f": b"1"})])
    there.add_image("db:1", [tar_of({"f": b"2"})])
    other = world.engine.add_image("db:1", [tar_of({"f": b"other"})])
    await _want(world, web=web, db=other, gone=other)
    result = await _verifier(world).verify("r1", asked=there)
    assert [(one.reference, one.verdict) for one in result.items] == [
        (DB, "other content"),
        ("docker.io/library/gone:1", "missing"),
        (WEB, "ok"),
    ]
    assert result.as_of is None
    assert not result.well


async def test_the_records_are_as_old_as_the_last_word() -> None:
    """What arrived after the agent's start counts; its time is told."""
    world = Cluster()
    web = world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    await _want(world, web=web)
    await _known(world)
    assert [one.verdict for one in (await _verifier(world).verify("r1")).items] == ["missing"]
    later = THEN + timedelta(hours=1)
    holdings = RangeInventory(range_id="r1", images={WEB: web.image_id}, heard_at=later)
    await _store(world, ReadModelKeys(STREAMS.prefix).holdings("r1"), holdings)
    result = await _verifier(world).verify("r1")
    assert (result.well, result.as_of) == (True, later)


async def test_layers_decide_where_the_range_cannot_tell_the_config() -> None:
    """A containerd store announces diff IDs only, and the read model keeps the name only."""
    world = Cluster()
    web = world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    await _want(world, web=web)
    await _known(world, PresentImage(references=(WEB,), diff_ids=web.diff_ids))
    await _store(world, ReadModelKeys(STREAMS.prefix).holdings("r1"), RangeInventory(range_id="r1", images={WEB: None}))
    assert (await _verifier(world).verify("r1")).well


async def test_an_image_never_deployed_is_what_the_host_has_or_the_registry() -> None:
    """With both away nobody knows, which is not well."""
    world, there = Cluster(), MemoryEngine()
    web = there.add_image("web:1", [tar_of({"f": b"1"})])
    there.registries = {world.registry.address: world.registry}
    name = f"{world.registry.address}/library/web:1"
    await there.tag("web:1", name)
    async with there.push(name) as lines:
        assert [line async for line in lines]
    verifier = _verifier(world)
    from_registry = await verifier.verify("r1", ["web:1"], asked=there)
    assert [(one.verdict, one.wanted) for one in from_registry.items] == [("ok", web.image_id)]
    world.engine.add_image("web:1", [tar_of({"f": b"newer"})])
    assert [one.verdict for one in (await verifier.verify("r1", [WEB], asked=there)).items] == ["other content"]
    world.engine.away = world.registry.away = True
    unknown = await verifier.verify("r1", [WEB, "web:1"], asked=there)
    assert [one.verdict for one in unknown.items] == ["unknown"]


async def test_a_range_of_which_only_a_deployment_failed_is_not_found() -> None:
    """A mistyped name: the tracker noted the end of its deployment, and no agent ever reported an image."""
    world = Cluster()
    failed = RangeInventory(range_id="nowhere", heard_at=THEN)
    await _store(world, ReadModelKeys(STREAMS.prefix).holdings("nowhere"), failed)
    with pytest.raises(NotFound, match="never reported its images"):
        await _verifier(world).verify("nowhere")
    with pytest.raises(NotFound, match="never reported its images"):
        await in_range(world.bus, STREAMS, "nowhere")


async def test_a_range_that_never_spoke_is_not_found() -> None:
    """With the way to ask its engine instead."""
    with pytest.raises(NotFound, match="never reported its images") as told:
        await _verifier(Cluster()).verify("nowhere")
    assert "--engine-url" in told.value.hint


async def test_mounted_layers_that_cannot_be_read_are_found() -> None:
    """What the host's layer-mounter says of the range's layers, and what its agent says, each with what helps."""
    world, keys = Cluster(), MountKeys(STREAMS.prefix)
    web, db = (world.engine.add_image(f"{name}:1", [tar_of({"f": name.encode()})]) for name in ("web", "db"))
    await _want(world, web=web, db=db)
    there = [PresentImage(references=one.references, image_id=one.image_id, diff_ids=one.diff_ids) for one in (web, db)]
    await _known(world, *there)
    assert (await _verifier(world).verify("r1")).well
    lost = MountProblem(range_id="r1", diff_id=web.diff_ids[0], why="its blob is gone")
    await _store(world, keys.host("h"), MountedBlobs(problems=(lost,)))
    await world.bus.commit(Outcome(index=(IndexWrite(keys.hosts, "h", 0.0),)))
    known = (await RangeKeys(STREAMS.prefix).known("r1").load(world.bus)).value
    assert known is not None
    covered = msgspec.structs.replace(known, unreadable_layers=db.diff_ids)
    await _store(world, RangeKeys(STREAMS.prefix).known("r1"), covered)
    result = await _verifier(world).verify("r1")
    assert [(one.reference, one.verdict) for one in result.items] == [(DB, "unreadable"), (WEB, "unreadable")]
    assert "no layer-mounter runs" in result.items[0].why
    assert "on host h, its blob is gone" in result.items[1].why
    assert not result.well
    await world.bus.beat(STREAMS.mounter_alive("h"), b"1", 60.0)
    assert "restart the range's container" in (await _verifier(world).verify("r1")).items[0].why
