"""Layers with a form of their own: compressed on the way, or as the engine keeps them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import zstandard

from events.memory.bus import MemoryBus
from events.messages import Layer
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.images.encodings import CodecSetting
from services.core.images.image import EngineImage
from services.core.images.manifests import sha256
from services.ports import Chunks, LayerSource
from services.registry_pusher.compression import samples_of
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush
from services.registry_pusher.progress import ProgressCounters
from tests.unit.services.layer_twins import TwinSource, TwinStream, layer

TEXT = b"shrinks well " * 20_000


async def yes() -> bool:
    return True


class Setup:
    """An engine with one image, a registry, and pushers with a setting."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.registry = MemoryRegistry()
        self.bus = MemoryBus()
        self.image = self.engine.add_image("app:1", [TEXT])

    def layers(self, codec: CodecSetting, source: LayerSource | None = None) -> LayerPush:
        return LayerPush(
            registry=self.registry,
            sources=(source or TwinSource(self.engine),),
            encodings=LayerEncodings(bus=self.bus, prefix="t"),
            layer_codec=codec,
            all_read_zstd=yes,
        )

    async def stored(self, repository: str, digest: str) -> bytes:
        async with self.registry.open_blob(repository, digest) as chunks:
            return b"".join([chunk async for chunk in chunks])


async def test_a_layer_that_shrinks_is_kept_as_zstd() -> None:
    """The blob is smaller, unpacks to the layer, and its digest and codec are in the result."""
    setup = Setup()
    (sent,), _ = await setup.layers("auto").bring(setup.image, "a", ProgressCounters())
    assert (sent.codec, sent.diff_id) == ("zstd", sha256(TEXT))
    blob = await setup.stored("a", sent.digest)
    assert len(blob) == sent.size_bytes < len(TEXT) // 10
    assert zstandard.ZstdDecompressor().decompressobj().decompress(blob) == TEXT


async def test_a_layer_keeps_its_form_when_the_setting_changes() -> None:
    """Raw stays raw and zstd stays zstd: one layer never has two digests."""
    setup = Setup()
    (first,), _ = await setup.layers("zstd").bring(setup.image, "a", ProgressCounters())
    (second,), _ = await setup.layers("raw").bring(setup.image, "b", ProgressCounters())
    assert first == second
    other = setup.engine.add_image("other:1", [TEXT[::-1]])
    (raw,), _ = await setup.layers("raw").bring(other, "a", ProgressCounters())
    (still,), _ = await setup.layers("zstd").bring(other, "b", ProgressCounters())
    assert raw == still
    assert raw.codec == "raw"


async def test_a_compressed_layer_that_is_gone_is_made_again() -> None:
    """The registry was emptied, the record is still there: same codec, and the blob is back."""
    setup = Setup()
    (first,), _ = await setup.layers("zstd").bring(setup.image, "a", ProgressCounters())
    setup.registry = MemoryRegistry()
    (again,), _ = await setup.layers("raw").bring(setup.image, "a", ProgressCounters())
    assert again == first
    assert await setup.registry.blob_size("a", again.digest) == first.size_bytes


class Kept(TwinSource):
    """A source whose engine keeps layers as zstd blobs."""

    async def blob(self, image: EngineImage, diff_id: str) -> Layer | None:
        content = self._packed(diff_id)
        return Layer(digest=sha256(content), diff_id=diff_id, size_bytes=len(content), codec="zstd")

    @asynccontextmanager
    async def stored(self, layer: Layer) -> AsyncIterator[Chunks]:
        yield self._chunks(layer.diff_id, self._packed(layer.diff_id))

    def _packed(self, diff_id: str) -> bytes:
        return zstandard.ZstdCompressor(level=19).compress(self._engine.store.layers[diff_id])


async def test_an_engines_blob_is_sent_as_it_lies() -> None:
    """Nothing is compressed or unpacked; the blob's digest is the layer's from now on."""
    setup = Setup()
    source = Kept(setup.engine)
    (sent,), _ = await setup.layers("raw", source).bring(setup.image, "a", ProgressCounters())
    blob = await source.blob(setup.image, sent.diff_id)
    assert sent == blob
    assert source.opened == []
    (elsewhere,), _ = await setup.layers("raw").bring(setup.image, "b", ProgressCounters())
    assert elsewhere == sent


async def test_a_layer_that_is_raw_already_stays_raw() -> None:
    """An engine's blob is no reason for a second form."""
    setup = Setup()
    (raw,), _ = await setup.layers("raw").bring(setup.image, "a", ProgressCounters())
    setup.registry = MemoryRegistry()
    (again,), _ = await setup.layers("raw", Kept(setup.engine)).bring(setup.image, "a", ProgressCounters())
    assert again == raw


async def test_a_layer_out_of_one_stream_is_kept_as_zstd_too() -> None:
    """Without the engine's folders a layer goes by once: its first megabytes tell whether it shrinks."""
    setup = Setup()
    (sent,), used = await setup.layers("auto", TwinStream(setup.engine)).bring(setup.image, "a", ProgressCounters())
    assert (sent.codec, used) == ("zstd", "save")
    assert zstandard.ZstdDecompressor().decompressobj().decompress(await setup.stored("a", sent.digest)) == TEXT
    other = setup.engine.add_image("other:1", [os.urandom(100_000)])
    (raw,), _ = await setup.layers("auto", TwinStream(setup.engine)).bring(other, "a", ProgressCounters())
    assert (raw.codec, raw.digest) == ("raw", other.diff_ids[0])


async def test_gzip_that_is_gone_becomes_raw_once() -> None:
    """Nobody can make those bytes again: the layer is raw from then on, and not sent anew for each image."""
    setup = Setup()
    push = setup.layers("raw")
    diff_id = setup.image.diff_ids[0]
    await push.adopt([Layer(digest=sha256(b"gone"), diff_id=diff_id, size_bytes=4, codec="gzip")], "old")
    (first,), _ = await push.bring(setup.image, "a", ProgressCounters())
    assert (first.codec, first.digest) == ("raw", diff_id)
    (second,), _ = await push.bring(setup.image, "b", ProgressCounters())
    assert second == first
    assert len(setup.registry.uploaded) == 1


async def test_a_probe_reads_the_beginning_alone() -> None:
    """Every eighth megabyte of the first 64; a short layer is probed whole."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1 << 20
            yield bytes(1 << 20)

    assert [len(one) for one in await samples_of(endless())] == [1 << 20] * 8
    assert read == 64 << 20

    async def short() -> AsyncIterator[bytes]:
        yield layer("short")

    assert await samples_of(short()) == [layer("short")]
