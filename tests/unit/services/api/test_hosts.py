"""Hosts over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from events.bus import IndexWrite, Outcome
from events.records import ANY, Stored
from services.commands.forget_host import forget_host
from services.core.hosts.held_images import NEVER, HeldImage, HeldImages, HeldKeys
from services.core.hosts.hosts import HostKeys, HostRecord
from services.core.images.read_model import ReadModelKeys, RegistryEntry
from services.core.mounts.pins import MountedBlobs, MountKeys
from services.core.ranges.ranges import KnownRange, RangeKeys
from tests.unit.services.api.site import Service
from tests.unit.services.twins import STREAMS

NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEYS, HELD = HostKeys(STREAMS.prefix), HeldKeys(STREAMS.prefix)
WEB = "docker.io/library/web:1"


async def _hosts(service: Service) -> None:
    """One that is there and has a range, one that is away; both hold an image."""
    bus, ranges = service.world.bus, RangeKeys(STREAMS.prefix)
    held = HeldImage(local_id="i", image_id="i", diff_ids=(), since=NOW)
    both = HeldImages(reference=WEB, hosts={"a": held, "b": held})
    known = KnownRange(
        range_id="r1",
        engine_id="e",
        engine_version="28",
        store="classic",
        platform="linux/amd64",
        started_at=NOW,
        host="a",
    )
    await bus.commit(HELD.written(Stored(None, 0), both, "b", NOW))
    for number, host in enumerate("ab"):
        record = HostRecord(host=host, machine=f"machine-{host}", since=NOW, seen_at=NOW, free_bytes=number)
        await bus.commit(
            Outcome(
                records=(KEYS.record(host).write(record, expected=ANY), ranges.known("r1").write(known, expected=ANY)),
                index=(IndexWrite(KEYS.all, host, 1.0), IndexWrite(ranges.known_index, "r1", 1.0)),
            )
        )
        if host == "a":
            await bus.beat(STREAMS.host_alive(host), record.encode(), 60.0)


async def test_hosts_are_listed_with_what_they_last_reported(service: Service) -> None:
    """Also one that is away."""
    await _hosts(service)
    await service.look()
    rows = (await service.get("/api/v1/hosts"))["items"]
    assert [(row["host"], row["state"], row["machine"], row["ranges"], row["free_bytes"]) for row in rows] == [
        ("a", "alive", "machine-a", 1, 0),
        ("b", "away", "machine-b", 0, 1),
    ]


async def test_a_host_that_is_gone_is_forgotten_with_what_it_held(service: Service) -> None:
    """One that is there only by force; one that nobody knows is not found."""
    await _hosts(service)
    bus = service.world.bus
    async with service.client.delete("/api/v1/hosts/b") as reply:
        assert reply.status == 204
    assert await bus.members(KEYS.all) == ["a"]
    left = (await HELD.images(WEB).load(bus)).value
    assert left is not None
    assert list(left.hosts) == ["a"]
    for path, status in (("/api/v1/hosts/b", 404), ("/api/v1/hosts/a", 409), ("/api/v1/hosts/a?force=true", 204)):
        async with service.client.delete(path) as reply:
            assert reply.status == status, await reply.text()


async def test_what_a_host_holds_is_listed_page_by_page(service: Service) -> None:
    """By name, with what the registry has under each."""
    await _hosts(service)
    bus = service.world.bus
    for name in ("api:1", "db:1"):
        held = HeldImages(
            reference=f"docker.io/library/{name}",
            hosts={"a": HeldImage(local_id="l", image_id="i", diff_ids=(), since=NEVER)},
        )
        await bus.commit(HELD.written(Stored(None, 0), held, "a", NOW))
    await bus.commit(Outcome(index=(IndexWrite(HELD.of_host("a"), WEB, 1.0),)))
    first = await service.get("/api/v1/hosts/a/images?limit=2")
    assert [(row["reference"], row["registry"], row["announced_at"]) for row in first["items"]] == [
        ("docker.io/library/api:1", "no", None),
        ("docker.io/library/db:1", "no", None),
    ]
    assert first["total"] == 3
    second = await service.get(f"/api/v1/hosts/a/images?limit=2&cursor={first['next']}")
    assert [row["reference"] for row in second["items"]] == [WEB]
    assert second["next"] is None
    entry = RegistryEntry(
        reference=WEB,
        repository="library/web",
        tag="1",
        manifest_digest="sha256:m",
        image_id="other",
        layers=0,
        size_bytes=0,
        pushed_at=NOW,
    )
    key = ReadModelKeys(STREAMS.prefix).image(WEB)
    await bus.commit(Outcome(records=(key.write(entry, expected=ANY),)))
    (held,) = (await service.get("/api/v1/hosts/a/images?q=web"))["items"]
    assert held["registry"] == "other"
    same = msgspec.structs.replace(entry, image_id="i")
    await bus.commit(Outcome(records=(key.write(same, expected=ANY),)))
    assert (await service.get("/api/v1/hosts/a/images?q=web"))["items"][0]["registry"] == "same"
    assert (await service.get("/api/v1/hosts/a/images?q=WEB"))["total"] == 1
    await service.get("/api/v1/hosts/c/images", status=404)


async def test_a_forgotten_host_s_mounted_layers_are_forgotten_with_it(service: Service) -> None:
    """Not while its layer-mounter runs: the collector keeps their blobs then. One known by them alone is forgotten."""
    await _hosts(service)
    bus, mounts = service.world.bus, MountKeys(STREAMS.prefix)
    for host in "bc":
        record = mounts.host(host).write(MountedBlobs(digests=("sha256:m",)), expected=ANY)
        await bus.commit(Outcome(records=(record,), index=(IndexWrite(mounts.hosts, host, 0.0),)))
    await bus.beat(STREAMS.mounter_alive("b"), b"1", 60.0)
    await forget_host(bus, STREAMS, "b")
    assert sorted(await bus.members(mounts.hosts)) == ["b", "c"]
    await forget_host(bus, STREAMS, "c")
    assert await bus.members(mounts.hosts) == ["b"]
    assert (await mounts.host("c").load(bus)).value is None


async def test_mounted_layers_that_an_agent_cannot_read_are_a_metric(service: Service) -> None:
    """While it answers."""
    await _hosts(service)
    bus, key = service.world.bus, RangeKeys(STREAMS.prefix).known("r1")
    known = (await key.load(bus)).value
    assert known is not None
    said = msgspec.structs.replace(known, unreadable_layers=(f"sha256:{'a' * 64}",))
    await bus.commit(Outcome(records=(key.write(said, expected=ANY),)))

    async def scraped() -> str:
        await service.look()
        async with service.client.get("/metrics") as answer:
            return await answer.text()

    sample = 'cyroid_layers_unreadable{found_by="agent",host="a"}'
    assert f"{sample} 0.0" in await scraped()
    await bus.beat(STREAMS.alive("r1"), b"{}", 60.0)
    assert f"{sample} 1.0" in await scraped()


async def test_ranges_of_one_host_are_listed_alone(service: Service) -> None:
    """And each row says where the range runs."""
    await _hosts(service)
    await service.look()
    assert [row["host"] for row in (await service.get("/api/v1/ranges?host=a"))["items"]] == ["a"]
    assert (await service.get("/api/v1/ranges?host=b"))["items"] == []
