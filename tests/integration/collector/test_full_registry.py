"""A registry whose disk is full: what uploads took of it is freed, so that smaller images find room."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.machine.polling import poll
from events.redis.bus import RedisBus
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.adapters.registry import HttpRegistry
from services.adapters.save_stream import SaveStream
from services.collector.scrub import Scrub
from services.collector.storage import RegistryStorage
from services.collector.uploads import ABANDONED_SECONDS, purge_uploads
from services.content.bundle import BundleReader, load_bundle
from services.core.images.manifests import sha256
from services.core.images.references import Reference
from services.errors import NoSpace
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from tests.images import tar_of
from tests.integration.collector.test_sweep import Store
from tests.integration.test_bundles import Sites
from tests.laboratory import Lab, RedisServer, RegistryServer

pytestmark = pytest.mark.real

DISK_BYTES = 8 * 1024 * 1024
PIECE = os.urandom(1024 * 1024)


@pytest.fixture(scope="module")
def small(lab: Lab) -> Iterator[RegistryServer]:
    """A registry on a disk of eight megabytes."""
    folder = lab.folder / "small-disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    try:
        registry = lab.registry("small-registry", storage=folder / "storage")
        try:
            yield registry
        finally:
            registry.stop()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def _put(registry: HttpRegistry, repository: str, pieces: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield PIECE

    digest = hashlib.sha256(PIECE * pieces).hexdigest()
    await registry.put_blob(repository, f"sha256:{digest}", pieces * len(PIECE), chunks())


def _taken(registry: RegistryServer) -> int:
    disk = os.statvfs(registry.storage)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


async def test_uploads_that_did_not_fit_are_purged(small: RegistryServer, unique: str) -> None:
    """Each try says that there is no space. The registry keeps them and refuses to cancel them; the collector removes
    them an hour after the last byte, and not earlier; then there is room again."""
    storage = RegistryStorage(small.storage)
    async with HttpRegistry.open(small.url) as registry:
        for _ in range(3):
            with pytest.raises(NoSpace):
                await _put(registry, unique, 12)
        taken = _taken(small)
        assert taken > DISK_BYTES // 2
        assert purge_uploads(storage, now=time.time()).uploads == 0
        purged = purge_uploads(storage, now=time.time() + 2 * ABANDONED_SECONDS)
        assert (purged.uploads, _taken(small) < taken - purged.freed_bytes // 2) == (3, True)
        await _put(registry, unique, 4)
        assert storage.uploads_bytes() == 0


async def test_an_upload_of_a_client_that_was_killed_is_purged(small: RegistryServer, unique: str) -> None:
    """A connection that ends in the middle leaves its upload; nobody can go on with it."""
    storage = RegistryStorage(small.storage)

    async def breaks_off() -> AsyncIterator[bytes]:
        yield PIECE
        yield PIECE
        await asyncio.Event().wait()

    registry = HttpRegistry.open(small.url)
    client = await registry.__aenter__()
    task = asyncio.create_task(client.put_blob(unique, f"sha256:{'0' * 64}", 3 * len(PIECE), breaks_off()))
    uploads = small.storage / "docker/registry/v2/repositories" / unique / "_uploads"
    assert await asyncio.to_thread(
        poll, lambda: any(path.stat().st_size for path in uploads.glob("*/data")), seconds=20
    )
    await registry.__aexit__(None, None, None)
    task.cancel()
    with suppress(BaseException):
        await task

    def purged() -> bool:  # the registry notices the end of the connection a moment later
        purge_uploads(storage, now=time.time() + 2 * ABANDONED_SECONDS)
        return list(uploads.iterdir()) == []

    assert await asyncio.to_thread(poll, purged, seconds=20)


async def test_a_scrub_and_a_bundle_on_a_full_disk(
    small: RegistryServer, registry_server: RegistryServer, unique: str
) -> None:
    """Damage is set aside without a free byte; a bundle that does not fit says so, and mends it once there is room."""
    filler = small.storage.parent / "filler"
    async with HttpRegistry.open(registry_server.url) as here, HttpRegistry.open(small.url) as there:
        sites, hurt = Sites(here, there, f"bundle/{unique}"), Store(there, small.storage)
        layer = os.urandom(200_000)
        manifest = await sites.push("1", layer)
        bundle, _ = await sites.bundle("1")
        assert [one async for one in load_bundle(there, BundleReader(bundle))]
        digest = sha256(layer).removeprefix("sha256:")
        await asyncio.to_thread(_flip, hurt.storage.folder(digest) / "data")
        await asyncio.to_thread(_fill, filler)
        mark, blobs, _ = await hurt.sweep.plan()
        found = await Scrub(hurt.storage).scrub(mark, blobs)
        assert (found.damaged, found.affected) == ([digest], [(sites.name, "1")])
        with pytest.raises(NoSpace):
            assert [one async for one in load_bundle(there, BundleReader(bundle))]
        filler.unlink()
        assert [one async for one in load_bundle(there, BundleReader(bundle))]
        assert hurt.storage.is_intact(digest)
        assert (await there.manifest(sites.name, "1") or (None, None))[1] == manifest


async def test_a_push_onto_a_full_disk(small: RegistryServer, redis_server: RedisServer, unique: str) -> None:
    """With no byte for a layer, and with none for the second tag of layers that are there: each push says that there is
    no space, what was there stays whole, and the same push succeeds once there is room."""
    filler, storage, engine = small.storage.parent / "filler", RegistryStorage(small.storage), MemoryEngine()
    images = {name: engine.add_image(f"{unique}:{name}", [tar_of({"f": os.urandom(300_000)})]) for name in "12"}
    streams = Streams(unique)
    async with (
        HttpRegistry.open(small.url) as registry,
        RedisBus.open(redis_server.url, streams=streams) as bus,
    ):
        sources, encodings = [SaveStream(engine)], LayerEncodings(bus=bus, prefix=unique)
        layers = LayerPush(registry=registry, sources=sources, encodings=encodings)
        push = ImagePush(engine=engine, registry=registry, sources=sources, layers=layers, engine_registry=None)
        await push.push(f"{unique}:1")
        await engine.tag(images["1"].local_id, f"{unique}:again")
        await asyncio.to_thread(_fill, filler)
        for name in ("2", "again"):
            with pytest.raises(NoSpace):
                await push.push(f"{unique}:{name}")
        purge_uploads(storage, now=time.time() + 2 * ABANDONED_SECONDS)
        assert await push.verified(Reference.parse(f"{unique}:1"), images["1"])
        assert storage.is_intact(images["1"].diff_ids[0].removeprefix("sha256:"))
        filler.unlink()
        for name, image in (("2", images["2"]), ("again", images["1"])):
            await push.push(f"{unique}:{name}")
            assert await push.verified(Reference.parse(f"{unique}:{name}"), image)
        mark, blobs, _ = await Store(registry, small.storage).sweep.plan()
        assert (await Scrub(storage).scrub(mark, blobs)).damaged == []
        assert mark.broken_tags == []


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
