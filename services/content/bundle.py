"""Bundles of images: written from the registry as a stream, loaded into another one, checked by digest on both ways."""

from __future__ import annotations

import asyncio
import errno
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import IO

import msgspec

from events.messages import ImagePushed, Layer
from services.content.registry_config import registry_config
from services.core.images.bundles import LAYOUT, BundledImage, BundleIndex, BundleList, blob_name
from services.core.images.encodings import codec_of
from services.core.images.manifests import Descriptor, Manifest, sha256
from services.core.images.references import Reference
from services.errors import BadArchive, BadInput, BlobDamaged, NoSpace, NotFound, WrongContent
from services.ports import Registry

_CHUNK_BYTES = 1024 * 1024
_BLOCK = 512
_SMALL_LIMIT_BYTES = 4 * 1024 * 1024


async def create_bundle(registry: Registry, references: Sequence[str], out: IO[bytes], since: BundleList) -> BundleList:
    """Write the images to `out`, without what is on `since`; the list for the next one. Raises NotFound.

    All names are looked up before the first byte. A layer that breaks off or has other content ends it: what was
    written by then is no whole archive.
    """
    images: list[BundledImage] = []
    had, written = set(since.blobs), set[str]()
    manifests = [await _manifest(registry, Reference.parse(text)) for text in dict.fromkeys(references)]
    await _write(out, "oci-layout", LAYOUT)
    for reference, manifest in manifests:
        for blob in (manifest.body.config, *manifest.body.layers):
            if blob.digest not in had | written:
                written.add(blob.digest)
                await _write_blob(out, registry, reference.repository, blob)
        if manifest.digest not in written:  # small, and an archive without it could not be read
            written.add(manifest.digest)
            await _write(out, blob_name(manifest.digest), manifest.content)
        images.append(BundledImage.of(manifest.descriptor, str(reference)))
    await _write(out, "index.json", msgspec.json.encode(BundleIndex(manifests=tuple(images))))
    await _put(out, bytes(2 * _BLOCK), flush=True)
    return since.with_blobs(written)


async def _manifest(registry: Registry, reference: Reference) -> tuple[Reference, Manifest]:
    found = await registry.manifest(reference.repository, reference.registry_tag)
    if found is None:
        raise NotFound(f"the registry has no image {reference.familiar}")
    return reference, found[1]


async def image_archive(
    registry: Registry, repository: str, manifest: Manifest, reference: str
) -> AsyncGenerator[bytes, None]:
    """One image of the registry as an OCI layout in a tar, for an engine on containerd's store to load under a name."""
    tag = Reference.parse(reference).tag or ""
    image = BundledImage.of(manifest.descriptor, tag).named_for_containerd(reference)
    yield _file("oci-layout", LAYOUT)
    yield _file(blob_name(manifest.digest), manifest.content)
    for blob in {one.digest: one for one in (manifest.body.config, *manifest.body.layers)}.values():
        yield _header(blob_name(blob.digest), blob.size)
        async with registry.open_blob(repository, blob.digest) as chunks:
            async for chunk in chunks:
                yield chunk
        yield bytes(-blob.size % _BLOCK)
    yield _file("index.json", msgspec.json.encode(BundleIndex(manifests=(image,)))) + bytes(2 * _BLOCK)


async def _write(out: IO[bytes], name: str, content: bytes) -> None:
    await _put(out, _file(name, content))


async def _put(out: IO[bytes], content: bytes, *, flush: bool = False) -> None:
    """Raises NoSpace where the disk is full, BadInput where nobody reads any more."""
    try:
        await asyncio.to_thread(out.write, content)
        if flush:
            await asyncio.to_thread(out.flush)
    except OSError as problem:
        if problem.errno == errno.ENOSPC:
            raise NoSpace(
                "the bundle does not fit: its disk is full; what was written is no whole archive"
            ) from problem
        raise BadInput(f"the bundle cannot be written: {problem.strerror}") from problem


def _file(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + bytes(-len(content) % _BLOCK)


async def _write_blob(out: IO[bytes], registry: Registry, repository: str, blob: Descriptor) -> None:
    await _put(out, _header(blob_name(blob.digest), blob.size))
    count = 0
    async with registry.open_blob(repository, blob.digest) as chunks:
        async for chunk in chunks:
            count += len(chunk)
            await _put(out, chunk)
    if count != blob.size:
        raise WrongContent(f"the registry's blob {blob.digest} has {count} bytes, its manifest says {blob.size}")
    if padding := bytes(-count % _BLOCK):
        await _put(out, padding)


def _header(name: str, size_bytes: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size_bytes
    return entry.tobuf(tarfile.PAX_FORMAT)


# ---- loading ----


class BundleReader:
    """A bundle in a file that can be read at any place. Raises BadArchive for what is none."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        try:
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                self._places = {one.name.removeprefix("./"): one for one in tar if one.isreg()}
        except (tarfile.TarError, OSError, EOFError) as problem:
            raise BadArchive(f"the bundle is no tar, or is cut off: {problem}") from problem

    def size(self, digest: str) -> int | None:
        """Bytes of a blob in the bundle, None where it is not in it."""
        entry = self._places.get(blob_name(digest))
        return None if entry is None else entry.size

    def small(self, name: str) -> bytes:
        """Raises BadArchive for a file that is missing, or is none that is read as a whole."""
        entry = self._places.get(name)
        if entry is None or entry.size > _SMALL_LIMIT_BYTES:
            raise BadArchive(f"the bundle has no {name} that could be read")
        self._file.seek(entry.offset_data)
        return self._file.read(entry.size)

    async def chunks(self, digest: str) -> AsyncIterator[bytes]:
        entry = self._places[blob_name(digest)]
        for start in range(0, entry.size, _CHUNK_BYTES):
            yield await asyncio.to_thread(self._read, entry.offset_data + start, min(_CHUNK_BYTES, entry.size - start))

    def _read(self, offset: int, size_bytes: int) -> bytes:
        self._file.seek(offset)
        content = self._file.read(size_bytes)
        if len(content) != size_bytes:
            raise BadArchive("the bundle is cut off")
        return content


#: Told the digest of a blob that the registry has in another size than it should.
ReportDamage = Callable[[str], Awaitable[None]]


async def nobody_mends(digest: str) -> None:
    """Nobody sets it aside: the error alone tells of it."""


async def load_bundle(
    registry: Registry, reader: BundleReader, damaged: ReportDamage = nobody_mends
) -> AsyncIterator[ImagePushed]:
    """Put every image of a bundle into the registry, one after the other; a load that broke off goes on where it was.

    Raises BadArchive, NotFound for what neither bundle nor registry has, BlobDamaged after `damaged` was told.
    """
    index = BundleIndex.parse(await asyncio.to_thread(reader.small, "index.json"))
    for image in index.manifests:
        content = await asyncio.to_thread(reader.small, blob_name(image.digest))
        if sha256(content) != image.digest:
            raise WrongContent(f"the bundle's manifest {image.digest} has other content")
        manifest = Manifest.parse(content)
        reference = Reference.parse(image.reference)
        for blob in (manifest.body.config, *manifest.body.layers):
            found = await registry.blob_size(reference.repository, blob.digest)
            if found not in (None, blob.size):
                await damaged(blob.digest)
                raise BlobDamaged(
                    f"the registry's blob {blob.digest} is damaged: it has {found} bytes, not {blob.size}; the role"
                    " collector sets it aside, then load the bundle again"
                )
        yield await _load(registry, reader, reference, manifest)


async def _load(registry: Registry, reader: BundleReader, reference: Reference, manifest: Manifest) -> ImagePushed:
    sent = reused = 0
    for blob in (manifest.body.config, *manifest.body.layers):
        if await registry.blob_size(reference.repository, blob.digest) is not None:
            reused += blob.size
        elif reader.size(blob.digest) is not None:
            await registry.put_blob(reference.repository, blob.digest, blob.size, reader.chunks(blob.digest))
            sent += blob.size
        elif await _mounted(registry, reference.repository, blob.digest):
            reused += blob.size
        else:
            raise NotFound(
                f"{reference.familiar} needs {blob.digest}, which neither the bundle nor the registry has: load the"
                " bundle before this one"
            )
    await registry.put_manifest(reference.repository, reference.registry_tag, manifest)
    config = await registry_config(registry, reference.repository, manifest)
    if len(manifest.body.layers) != len(config.rootfs.diff_ids):
        raise BadArchive(f"{reference.familiar} in the bundle has other layers than its config")
    layers = zip(manifest.body.layers, config.rootfs.diff_ids, strict=True)
    return ImagePushed(
        reference=str(reference),
        repository=reference.repository,
        tag=reference.registry_tag,
        manifest_digest=manifest.digest,
        image_id=manifest.body.config.digest,
        layers=tuple(
            Layer(digest=blob.digest, diff_id=diff_id, size_bytes=blob.size, codec=codec_of(blob.media_type))
            for blob, diff_id in layers
        ),
        sent_bytes=sent,
        reused_bytes=reused,
        method="blobs",
    )


async def _mounted(registry: Registry, repository: str, digest: str) -> bool:
    """From any repository that has it: an earlier bundle may have brought it under another name."""
    async for other in registry.repositories():
        if other != repository and await registry.mount_blob(repository, digest, other):
            return True
    return False
