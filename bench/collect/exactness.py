"""Whether a collection does what it said: bytes freed, figures, repair of damage, and a disk without a free byte."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench.collect.clients import once
from bench.collect.cost import nothing
from deploy.lab import Lab, RegistryServer
from services.adapters.registry import HttpRegistry
from services.collector.measure import measure
from services.collector.scrub import Scrub
from services.collector.storage import RegistryStorage
from services.collector.sweep import CollectionPolicy, CollectionResult, Sweep
from services.core.images.manifests import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest, sha256

DAY = 86400.0
DISK_BYTES = 48 * 1024 * 1024


class QuietStore:
    """A registry that nobody else uses, and collections of it at a time of our choosing."""

    def __init__(self, registry: HttpRegistry, root: Path) -> None:
        self.registry = registry
        self.storage = RegistryStorage(root)
        self.later = 0.0
        policy = CollectionPolicy(grace_seconds=DAY, keep_seconds=DAY)
        self.sweep = Sweep(
            self.storage, pins=nothing, intents=nothing, policy=policy, clock=lambda: time.time() + self.later
        )

    async def push(self, repository: str, tag: str, *layers: bytes) -> Manifest:
        config = await self.put(
            repository, b'{"architecture":"amd64","os":"linux","n":"%s"}' % uuid.uuid4().hex.encode()
        )
        blobs = [await self.put(repository, layer) for layer in layers]
        named = Descriptor(media_type=OCI_CONFIG, digest=config.digest, size=config.size)
        manifest = Manifest.write(named, tuple(blobs))
        await self.registry.put_manifest(repository, tag, manifest)
        return manifest

    async def put(self, repository: str, content: bytes) -> Descriptor:
        digest = sha256(content)
        if await self.registry.blob_size(repository, digest) is None:
            await self.registry.put_blob(repository, digest, len(content), once(content))
        return Descriptor(media_type=OCI_LAYER, digest=digest, size=len(content))

    async def ripen(self) -> CollectionResult:
        """Collections and days, until the next collection would set something aside: what a dry run says of it."""
        for _ in range(6):
            self.later += 2 * DAY
            _, _, said = await self.sweep.plan()
            if said.candidates:
                return said
            await self.sweep.collect()
        raise RuntimeError("nothing became a candidate, so nothing was measured")


@asynccontextmanager
async def quiet_store(server: RegistryServer) -> AsyncIterator[QuietStore]:
    async with HttpRegistry.open(server.url) as registry:
        yield QuietStore(registry, server.storage)


# ---- bytes and figures ----


async def bytes_error(lab: Lab) -> dict[str, int]:
    """What a dry run says that deletions free, less what a collection freed; figures against the files on the disk."""
    server = lab.registry("quiet")
    async with quiet_store(server) as store:
        shared = os.urandom(30_000)
        for number in range(40):
            await store.push(f"quiet/{number % 4}", f"{number}", shared, os.urandom(1000 + number), os.urandom(500))
        mark, blobs, _ = await store.sweep.plan()
        figures = measure(store.storage, mark, blobs, datetime.now(UTC)).figures
        files = sum(path.stat().st_size for path in server.storage.glob("docker/registry/v2/blobs/sha256/*/*/data"))
        for (repository, tag), manifest in mark.tagged.items():
            if int(tag) % 2:
                store.storage.delete_tag(repository, tag, manifest)
        said = await store.ripen()
        before = _file_bytes(server.storage)
        await store.sweep.collect()
        store.later += 2 * DAY
        freed = (await store.sweep.collect()).freed_bytes
        really = before - _file_bytes(server.storage)
    return {
        "bytes_error": abs(said.candidate_bytes - freed) + abs(freed - really),
        "freed_bytes": freed,
        "figures_vs_files": figures.stored_bytes - files,
    }


def _file_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("docker/registry/v2/blobs/sha256/*/*/data*"))


# ---- damage ----


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


async def repaired_vs_damaged(lab: Lab) -> float:
    """Layers and manifests that were flipped, cut or emptied: found by a scrub and right after the same push again."""
    damages: tuple[Callable[[Path], None], ...] = (_flip, _cut, _empty)
    repaired = damaged = 0
    async with quiet_store(lab.registry("damaged")) as store:
        for damage in damages:
            for part in ("layer", "manifest"):
                layer = os.urandom(4000)
                manifest = await store.push("damaged", "1", layer)
                hurt = (sha256(layer) if part == "layer" else manifest.digest).removeprefix("sha256:")
                damage(store.storage.folder(hurt) / "data")
                damaged += 1
                mark, blobs, _ = await store.sweep.plan()
                found = await Scrub(store.storage).scrub(mark, blobs)
                if hurt not in found.damaged or ("damaged", "1") not in found.affected:
                    continue
                await store.put("damaged", layer)
                await store.registry.put_manifest("damaged", "1", manifest)
                repaired += (
                    bool(store.storage.is_intact(hurt)) and await store.registry.manifest("damaged", "1") is not None
                )
    return repaired / damaged


# ---- a full disk ----


async def full_disk_failed(lab: Lab, folder: Path) -> int:
    """Collections on a small file system without a free byte: how many blobs were not set aside, restored or freed."""
    with _small_disk(folder) as disk:
        server = lab.registry("full", storage=disk / "registry")
        async with quiet_store(server) as store:
            kept = await store.push("full", "kept", os.urandom(20_000))
            for number in range(40):
                gone = await store.push("full", f"{number}", os.urandom(20_000))
                store.storage.delete_tag("full", f"{number}", gone.digest.removeprefix("sha256:"))
            said = await store.ripen()
            _fill(disk / "filler")
            aside = await store.sweep.collect()
            back = next(blob for blob in store.storage.blobs() if blob.quarantined_bytes)
            failed = said.candidates - aside.quarantined + (not store.storage.restore(back.digest))
            store.later += 2 * DAY
            freed = await store.sweep.collect()
            failed += aside.quarantined - 1 - freed.removed
            failed += await store.registry.manifest("full", "kept") is None
            (disk / "filler").unlink()
            failed += (await store.push("full", "after", os.urandom(20_000))).digest == kept.digest
        server.terminate()
        server.join()
    return failed


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """An ext4 of its own."""
    image, mounted = folder / "disk.img", folder / "disk"
    mounted.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def _fill(path: Path) -> None:
    """Until the file system has not one byte left."""
    with path.open("wb", buffering=0) as file:
        for size in (1024 * 1024, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
