"""Scans of the registry and of the host's engine repair the read model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from events.bus import Outcome
from events.records import ANY
from services.adapters.memory_archives import tar_of
from services.core.images.read_model import ImageLayers, ReadModelKeys, RegistryEntry
from services.core.images.registry_scan import ScanKeys, ScanReport
from services.tracker.host_scan import HostScanner
from services.tracker.registry_scan import RegistryScan, Scanner
from tests.unit.services.twins import STREAMS, Cluster, chunks

KEYS, SCANS = ReadModelKeys(STREAMS.prefix), ScanKeys(STREAMS.prefix)
NOW = datetime(2026, 1, 31, tzinfo=UTC)
WEB = "docker.io/library/web:1"


@pytest.fixture
async def world() -> Cluster:
    """An image in the registry that others pushed."""
    cluster = Cluster()
    await _push(cluster, "web:1", tar_of({"a": b"1"}), tar_of({"b": b"2"}))
    return cluster


async def _push(world: Cluster, name: str, *layers: bytes) -> None:
    full = f"{world.registry.address}/library/{name}"
    world.engine.add_image(full, layers)
    async with world.engine.push(full) as lines:
        assert [line async for line in lines]


async def _scan(world: Cluster, *, round_: int = 0) -> ScanReport:
    scan = RegistryScan(bus=world.bus, registry=world.registry, prefix=STREAMS.prefix, clock=lambda: NOW, round_=round_)
    return await scan.run(NOW)


async def _entry(world: Cluster, name: str = WEB) -> RegistryEntry | None:
    return (await KEYS.image(name).load(world.bus)).value


async def _layers(world: Cluster) -> ImageLayers:
    found = (await KEYS.layers(WEB).load(world.bus)).value
    assert found is not None
    return found


async def test_what_others_pushed_appears_and_what_is_gone_goes(world: Cluster) -> None:
    """With layers, digests and sizes; a second scan finds nothing new."""
    report = await _scan(world)
    assert (report.rows, report.added, report.removed, report.damaged) == (1, 1, 0, ())
    entry = await _entry(world)
    assert entry is not None
    assert (entry.foreign, entry.layers, entry.kind, entry.pushed_at) == (True, 2, "image", NOW)
    assert sum(size for _, size in (await _layers(world)).layers) == entry.size_bytes
    again = await _scan(world, round_=1)
    assert (again.added, again.removed) == (0, 0)
    found = await world.registry.manifest("library/web", "1")
    assert found is not None
    await world.registry.delete_manifest("library/web", found[0].digest)
    assert (await _scan(world)).removed == 1
    assert await _entry(world) is None
    assert await world.bus.members(KEYS.images) == []


async def test_damage_is_told_until_it_is_mended(world: Cluster) -> None:
    """A layer that the registry lost; who pushed the image is still known."""
    await _scan(world)
    layer = (await _layers(world)).layers[0][0]
    world.registry.lose(layer)
    for round_ in range(10):
        report = await _scan(world, round_=round_)
    assert report.damaged == (WEB,)
    entry = await _entry(world)
    assert entry is not None
    assert entry.problem == f"the blob {layer} is missing"
    await world.registry.put_blob("library/web", layer, None, chunks(tar_of({"a": b"1"})))
    assert (await _scan(world)).damaged == ()
    mended = await _entry(world)
    assert mended is not None
    assert mended.problem == ""


async def test_an_unavailable_registry_takes_nothing_off_the_list(world: Cluster) -> None:
    """The report says why, and keeps when the last scan ended; of several trackers one scans at a time."""
    times = [NOW]
    scanner = Scanner(
        bus=world.bus,
        registry=world.registry,
        prefix=STREAMS.prefix,
        clock=lambda: times[0],
        every_seconds=300,
    )
    assert await scanner.scan()
    assert not await scanner.scan()
    world.registry.away = True
    times[0] += timedelta(seconds=301)
    assert await scanner.scan()
    report = (await SCANS.registry.load(world.bus)).value
    assert report is not None
    assert report.error is not None
    assert (report.error.code, report.ended_at, report.rows) == ("registry_unavailable", NOW, 1)
    assert await _entry(world) is not None


async def test_a_push_that_is_heard_of_meanwhile_wins(world: Cluster) -> None:
    """The scan writes only over what it read."""
    await _scan(world)
    entry = await _entry(world)
    assert entry is not None
    stored = await KEYS.image(WEB).load(world.bus)
    newer = RegistryEntry(
        reference=WEB,
        repository="library/web",
        tag="1",
        manifest_digest="sha256:new",
        image_id="sha256:new",
        layers=1,
        size_bytes=1,
        pushed_at=NOW,
        actor="eva",
    )
    await world.bus.commit(Outcome(records=(KEYS.image(WEB).write(newer, expected=ANY),)))
    scan = RegistryScan(bus=world.bus, registry=world.registry, prefix=STREAMS.prefix, clock=lambda: NOW)
    await scan._write(stored, entry, None)
    assert await _entry(world) == newer


async def test_the_hosts_images_are_listed_once_in_a_while() -> None:
    """Under each name; what is gone goes, and an engine that is away is told."""
    world, times = Cluster(), [NOW]
    world.engine.add_image("web:1", [tar_of({"a": b"1"})])
    scanner = HostScanner(
        bus=world.bus, engine=world.engine, prefix=STREAMS.prefix, clock=lambda: times[0], every_seconds=10
    )
    assert await scanner.scan()
    assert not await scanner.scan()
    assert await world.bus.members(SCANS.host_images) == [WEB]
    entry = (await SCANS.host_image(WEB).load(world.bus)).value
    assert entry is not None
    assert (entry.reference, bool(entry.layers)) == (WEB, True)
    await world.engine.untag("web:1")
    times[0] += timedelta(seconds=11)
    assert await scanner.scan()
    assert WEB not in await world.bus.members(SCANS.host_images)
    world.engine.away = True
    times[0] += timedelta(seconds=11)
    assert await scanner.scan()
    report = (await SCANS.host.load(world.bus)).value
    assert report is not None
    assert report.error is not None
    assert report.error.code == "engine_unavailable"
