"""Reading an image for an export: from where it lies, and on from the next place when one breaks off."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import zstandard

from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.images.image import EngineImage
from services.core.images.manifests import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Descriptor,
    Manifest,
    sha256,
)
from services.errors import CyroidError, LayerUnreadable, RegistryUnavailable, Stalled, TransferFailed, WrongContent
from services.ports import Chunks
from services.tar_server.image_reader import ImageReader
from tests.unit.services.layer_twins import TwinSource, layer
from tests.unit.services.twins import chunks

NAME, REPOSITORY = "docker.io/team/app:1", "team/app"
LAYERS = [layer("base", 200_000), layer("top", 150_000)]


class BreakingRegistry(MemoryRegistry):
    """Blobs break off with `problem` after `after_bytes`, where one is set; `cut_blob` has too few."""

    problem: CyroidError | None = None
    after_bytes = 100_000
    cut_blob = ""

    async def blob_size(self, repository: str, digest: str) -> int | None:
        size = await super().blob_size(repository, digest)
        return 1000 if digest == self.cut_blob else size

    @asynccontextmanager
    async def open_blob(self, repository: str, digest: str) -> AsyncIterator[Chunks]:
        async with super().open_blob(repository, digest) as blob:
            yield self._breaking(blob)

    async def _breaking(self, blob: Chunks) -> AsyncIterator[bytes]:
        done = 0
        async for chunk in blob:
            done += len(chunk)
            if self.problem is not None and done > self.after_bytes:
                raise self.problem
            yield chunk


class Places:
    """A host engine and a registry; `publish` puts the host's image there, its layers packed as told."""

    def __init__(self) -> None:
        self.host = MemoryEngine()
        self.registry = BreakingRegistry()
        self.source = TwinSource(self.host)
        self.image = self.host.add_image(NAME, LAYERS)

    async def publish(self, *types: str) -> None:
        packings: dict[str, Callable[[bytes], bytes]] = {
            OCI_LAYER: bytes,
            OCI_LAYER_GZIP: gzip.compress,
            OCI_LAYER_ZSTD: zstandard.compress,
        }
        blobs = []
        for kind, content in zip(types, LAYERS, strict=True):
            packed = packings[kind](content)
            blobs.append(Descriptor(media_type=kind, digest=sha256(packed), size=len(packed)))
            await self.registry.put_blob(REPOSITORY, sha256(packed), None, chunks(packed))
        config = self.host.config(NAME)
        await self.registry.put_blob(REPOSITORY, sha256(config), None, chunks(config))
        named = Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config))
        await self.registry.put_manifest(REPOSITORY, "1", Manifest.write(named, tuple(blobs)))

    def reader(self) -> ImageReader:
        return ImageReader(engine=self.host, sources=[self.source], registry=self.registry)

    async def read(self, image: EngineImage, reader: ImageReader | None = None) -> dict[str, bytes]:
        opened = await (reader or self.reader()).open(NAME, image.image_id or "", image.diff_ids)
        return {
            one.diff_id: b"".join([chunk async for chunk in one.chunks]) async for one in opened.layers(image.diff_ids)
        }


@pytest.mark.parametrize(
    "problem",
    [TransferFailed("the connection broke"), Stalled("no byte came"), RegistryUnavailable("it is away")],
    ids=lambda problem: problem.code,
)
async def test_a_registry_that_dies_in_a_layer_is_followed_by_the_host(problem: CyroidError) -> None:
    """However it dies, the layer goes on at the same byte out of the host's engine."""
    places = Places()
    await places.publish(OCI_LAYER, OCI_LAYER)
    places.registry.problem = problem
    assert await places.read(places.image) == dict(zip(places.image.diff_ids, LAYERS, strict=True))
    assert places.source.opened == list(places.image.diff_ids)


async def test_wrong_bytes_are_not_gone_on_from() -> None:
    """What is in the archive already cannot be taken back."""
    places = Places()
    await places.publish(OCI_LAYER, OCI_LAYER)
    places.registry.problem = WrongContent("other content came")
    with pytest.raises(WrongContent, match="other content came"):
        await places.read(places.image)


async def test_the_archive_after_wrong_bytes_is_read_elsewhere() -> None:
    """A damaged blob stays damaged: the host's engine gives the layer in its place, as long as it has it."""
    places = Places()
    await places.publish(OCI_LAYER, OCI_LAYER)
    places.registry.problem = WrongContent("other content came")
    reader = places.reader()
    for _ in places.image.diff_ids:
        with pytest.raises(WrongContent):
            await places.read(places.image, reader)
    places.source.opened.clear()
    assert await places.read(places.image, reader) == dict(zip(places.image.diff_ids, LAYERS, strict=True))
    assert places.source.opened == list(places.image.diff_ids)
    await places.host.untag(NAME)
    with pytest.raises(WrongContent):
        await places.read(places.image, reader)


async def test_a_blob_of_another_size_than_the_host_s_layer_is_not_read() -> None:
    """It was cut on the registry's disk."""
    places = Places()
    await places.publish(OCI_LAYER, OCI_LAYER)
    places.registry.cut_blob = places.image.diff_ids[0]
    assert await places.read(places.image) == dict(zip(places.image.diff_ids, LAYERS, strict=True))
    assert places.source.opened == [places.image.diff_ids[0]]


@pytest.mark.parametrize("kind", [OCI_LAYER_GZIP, OCI_LAYER_ZSTD])
async def test_what_only_the_registry_has_is_unpacked(kind: str) -> None:
    """Layers that lie there compressed are given as the plain tars that the diff IDs name."""
    places = Places()
    await places.publish(kind, OCI_LAYER)
    await places.host.untag(NAME)
    assert await places.read(places.image) == dict(zip(places.image.diff_ids, LAYERS, strict=True))


async def test_the_host_is_read_rather_than_a_compressed_blob() -> None:
    """Nothing is unpacked that lies plain somewhere."""
    places = Places()
    await places.publish(OCI_LAYER_GZIP, OCI_LAYER)
    await places.read(places.image)
    assert places.source.opened == [places.image.diff_ids[0]]


async def test_a_tag_that_moved_on_says_nothing_of_the_old_content() -> None:
    """Its blobs are another image's."""
    places = Places()
    await places.publish(OCI_LAYER_GZIP, OCI_LAYER)
    other = Descriptor(media_type=OCI_CONFIG, digest=sha256(b"{}"), size=2)
    await places.registry.put_blob(REPOSITORY, other.digest, 2, chunks(b"{}"))
    await places.registry.put_manifest(REPOSITORY, "1", Manifest.write(other, ()))
    await places.host.untag(NAME)
    with pytest.raises(LayerUnreadable, match="no place that can be read now"):
        await places.read(places.image)
