"""Transfers of the fake engine: pull, push, load. Everything is verified as an engine does."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator, Callable

import zstandard

from services.adapters.memory_archives import LoadedImage, read_archive
from services.adapters.memory_store import MemoryStore
from services.core.images.manifests import Descriptor, ImageConfig, sha256
from services.core.images.references import Reference
from services.errors import BadArchive, NotFound, TransferFailed, WrongContent
from services.ports import Chunks, EngineProgress, Registry

Through = Callable[[bytes], AsyncIterator[bytes]]
"""Gives content in chunks, with whatever fault a test put in its way."""


async def pull(
    store: MemoryStore, registry: Registry, source: Reference, through: Through, *, reads_zstd: bool
) -> AsyncIterator[EngineProgress]:
    """By tag or digest; layers that the store has are not fetched."""
    repository = source.path
    found = await registry.manifest(repository, source.digest or source.tag or "latest")
    if found is None:
        raise NotFound(f"pull {source}: manifest unknown")
    descriptor, manifest = found
    config = await _blob(registry, repository, manifest.body.config)
    diff_ids = ImageConfig.parse(config).rootfs.diff_ids
    for layer, diff_id in zip(manifest.body.layers, diff_ids, strict=True):
        short = diff_id.removeprefix("sha256:")[:12]
        if diff_id in store.layers:
            yield EngineProgress(status="Already exists", layer=short)
            continue
        content = b""
        async for chunk in through(await _blob(registry, repository, layer)):
            content += chunk
            yield EngineProgress(status="Downloading", layer=short, done_bytes=len(content), total_bytes=layer.size)
        store.add_layer(_uncompressed(layer.media_type, content, reads_zstd=reads_zstd), wanted=diff_id)
        yield EngineProgress(status="Pull complete", layer=short)
    local_id = store.add_image(config, None if source.digest else str(source), manifest=manifest)
    store.digests[f"{source.name}@{descriptor.digest}"] = local_id
    yield EngineProgress(status=f"Digest: {descriptor.digest}")


async def push(
    store: MemoryStore, registry: Registry, reference: Reference, through: Through
) -> AsyncIterator[EngineProgress]:
    """Under the reference's tag; blobs that the repository has are not sent."""
    image = store.images[store.find(str(reference))]
    blobs = [(one, store.layers[one]) for one in image.diff_ids] + [(image.image_id, image.config)]
    for digest, content in blobs:
        if await registry.blob_size(reference.path, digest) is None:
            await registry.put_blob(reference.path, digest, len(content), through(content))
        yield EngineProgress(status="Pushed", layer=digest.removeprefix("sha256:")[:12])
    descriptor = await registry.put_manifest(reference.path, reference.tag or "latest", image.manifest)
    store.digests[f"{reference.name}@{descriptor.digest}"] = store.find(str(reference))


async def load(store: MemoryStore, archive: Chunks, through: Through) -> AsyncIterator[EngineProgress]:
    """An archive in either layout, whole or thin as far as the store takes it."""
    content = b"".join([chunk async for chunk in archive])
    passed = b"".join([chunk async for chunk in through(content)])
    for loaded in read_archive(passed):
        _load_image(store, loaded)
        for name in loaded.names:
            yield EngineProgress(status=f"Loaded image: {name}")


def _load_image(store: MemoryStore, loaded: LoadedImage) -> None:
    if store.kind == "classic" and loaded.manifest is not None:
        raise BadArchive("load an archive: open manifest.json: no such file or directory")
    diff_ids = ImageConfig.parse(loaded.config).rootfs.diff_ids
    takes_thin = store.kind == "classic" or loaded.manifest is not None
    for place, diff_id in enumerate(diff_ids, start=1):
        if takes_thin and store.knows(diff_ids[:place]):
            continue
        if diff_id not in loaded.layers:
            raise BadArchive(f"load an archive: the file of layer {diff_id}: no such file or directory")
        store.add_layer(loaded.layers[diff_id], wanted=diff_id, kind=BadArchive)
    local_id = store.add_image(loaded.config, None, manifest=loaded.manifest)
    if loaded.raw_layers:
        store.raw[local_id] = loaded.raw_layers
    for name in loaded.names:
        store.names[str(Reference.parse(name))] = local_id


async def _blob(registry: Registry, repository: str, blob: Descriptor) -> bytes:
    async with registry.open_blob(repository, blob.digest) as chunks:
        content = b"".join([chunk async for chunk in chunks])
    if sha256(content) != blob.digest:
        raise WrongContent(f"the blob {blob.digest} came as {sha256(content)}: filesystem layer verification failed")
    return content


def _uncompressed(media_type: str, content: bytes, *, reads_zstd: bool) -> bytes:
    try:
        if media_type.endswith("gzip"):
            return gzip.decompress(content)
        if media_type.endswith("zstd"):
            if not reads_zstd:
                raise TransferFailed("archive/tar: invalid tar header (this engine does not read zstd)")
            return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as problem:
        raise WrongContent(f"the layer is no {media_type}: {problem}") from problem
    return content
