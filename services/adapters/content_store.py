"""Layer source: the content store of an engine on the containerd store, read as it lies (mounted read-only is enough).

    <data-root>/containerd/daemon/io.containerd.content.v1.content/blobs/sha256/<hex>     an engine's own containerd
    <folder>/io.containerd.content.v1.content/blobs/sha256/<hex>                          a containerd beside it

Blobs lie there as they came, compressed or not, and can be given so: the same bytes have the same digest in the
registry, at no cost of compressing. Which blob a layer is comes from the manifest whose config lists the diff IDs.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, cast

import msgspec
import zstandard

from events.messages import Layer, LayerCodec
from services.adapters.chunk_streams import from_thread
from services.core.images.go_json import decode
from services.core.images.image import EngineImage
from services.core.images.manifests import CONFIG_LIMIT_BYTES, Descriptor, ImageConfig, Manifest, sha256
from services.errors import BadInput, LayerUnreadable
from services.ports import Chunks

CONTENT = "io.containerd.content.v1.content/blobs/sha256"
_PLACES = (f"containerd/daemon/{CONTENT}", CONTENT)
_BLOCK_BYTES = 1 << 20
_HEX = re.compile(r"sha256:([0-9a-f]{64})")
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


class _Index(msgspec.Struct):
    """An index of manifests, or of indexes (OCI image-index.md)."""

    manifests: tuple[Descriptor, ...]


class ContentStore:
    """The `BlobSource` port on a folder that is (a mount of) the data-root or containerd's own root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def name(self) -> str:
        return "blobs"

    async def config(self, image: EngineImage) -> bytes:
        return await asyncio.to_thread(lambda: self._document(self._manifest(image).body.config.digest))

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        """Known where the blob is the plain tar."""
        layer = await self.blob(image, diff_id)
        return layer.size_bytes if layer.codec == "raw" else None

    async def blob(self, image: EngineImage, diff_id: str) -> Layer:
        return await asyncio.to_thread(self._blob, image, diff_id)

    @asynccontextmanager
    async def stored(self, layer: Layer) -> AsyncIterator[Chunks]:
        async with from_thread(lambda: self._read(layer.digest)) as chunks:
            yield chunks

    @asynccontextmanager
    async def layer(self, image: EngineImage, diff_id: str) -> AsyncIterator[Chunks]:
        layer = await self.blob(image, diff_id)
        async with from_thread(lambda: _plain(layer, self._read(layer.digest))) as chunks:
            yield chunks

    def _blob(self, image: EngineImage, diff_id: str) -> Layer:
        layers = self._manifest(image).body.layers
        if len(layers) != len(image.diff_ids) or diff_id not in image.diff_ids:
            raise LayerUnreadable(f"the manifest of {image.local_id} has no layer {diff_id}")
        digest = layers[image.diff_ids.index(diff_id)].digest
        try:
            with self._path(digest).open("rb") as file:
                head = file.read(4)
                size_bytes = file.seek(0, 2)
        except OSError as problem:
            raise LayerUnreadable(f"cannot read the blob {digest}: {problem}") from problem
        return Layer(digest=digest, diff_id=diff_id, size_bytes=size_bytes, codec=_codec(head))

    def _manifest(self, image: EngineImage) -> Manifest:
        """The manifest of the image's own platform: the one whose config lists these layers."""
        waiting, seen = [image.local_id], 0
        while waiting and seen < 256:
            seen += 1
            try:
                document = self._document(waiting.pop(0))
            except LayerUnreadable:
                if seen == 1:
                    raise
                continue  # another platform's, not fetched
            try:
                waiting += [one.digest for one in decode(document, _Index).manifests]
                continue
            except msgspec.DecodeError:
                pass
            try:
                manifest = Manifest.parse(document)
                config = ImageConfig.parse(self._document(manifest.body.config.digest))
            except (BadInput, LayerUnreadable):
                continue  # an attestation, or another platform's
            if config.rootfs.diff_ids == image.diff_ids:
                return manifest
        raise LayerUnreadable(f"the content store in {self._root} has no manifest with the layers of {image.local_id}")

    def _document(self, digest: str) -> bytes:
        try:
            with self._path(digest).open("rb") as file:
                content = file.read(CONFIG_LIMIT_BYTES)
        except OSError as problem:
            raise LayerUnreadable(f"cannot read {digest} from the content store: {problem}") from problem
        if sha256(content) != digest:
            raise LayerUnreadable(f"the blob {digest} in {self._root} is not what its name says")
        return content

    def _read(self, digest: str) -> Iterator[bytes]:
        try:
            with self._path(digest).open("rb", buffering=0) as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block
        except OSError as problem:
            raise LayerUnreadable(f"cannot read the blob {digest}: {problem}") from problem

    def _path(self, digest: str) -> Path:
        matched = _HEX.fullmatch(digest)
        if matched is None:
            raise LayerUnreadable(f"{digest!r} is no digest that a content store has")
        for place in _PLACES:
            if (self._root / place).is_dir():
                return self._root / place / matched[1]
        raise LayerUnreadable(f"there is no content store in {self._root}")


def _codec(head: bytes) -> LayerCodec:
    if head.startswith(_GZIP):
        return "gzip"
    return "zstd" if head == _ZSTD else "raw"


def _plain(layer: Layer, blocks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        if layer.codec == "gzip":
            yield from _gunzip(blocks)
        elif layer.codec == "zstd":
            reader = zstandard.ZstdDecompressor().stream_reader(
                cast("IO[bytes]", _Source(blocks)), read_across_frames=True
            )
            while block := reader.read(_BLOCK_BYTES):
                yield block
        else:
            yield from blocks
    except (zlib.error, zstandard.ZstdError, EOFError) as problem:
        raise LayerUnreadable(f"the blob {layer.digest} does not unpack: {problem}") from problem


def _gunzip(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """One member after the other: compressors that work in parallel write many."""
    inflate = zlib.decompressobj(wbits=31)
    for block in blocks:
        waiting = block
        while waiting:
            if inflate.eof:
                inflate = zlib.decompressobj(wbits=31)
            if text := inflate.decompress(waiting, _BLOCK_BYTES):
                yield text
            waiting = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
    if not inflate.eof:
        raise EOFError("it is cut off")


class _Source:
    """What zstandard reads from: the blocks as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks

    def read(self, _size: int = -1) -> bytes:
        return next(self._blocks, b"")
