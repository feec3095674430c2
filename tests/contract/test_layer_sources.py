"""Conformance of layer sources: the exact bytes of config and layers, or LayerUnreadable."""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from services.adapters.layer_sources import Folders, layer_sources
from services.adapters.memory_engine import Fault, MemoryEngine
from services.adapters.save_stream import SaveStream
from services.core.images.image import EngineImage
from services.core.images.manifests import ImageConfig, sha256
from services.errors import EngineUnavailable, LayerUnreadable, TransferFailed
from services.ports import BlobSource, LayerSource, SequentialSource
from tests.layer_stores import write_content_store, write_layer_store


def layer_tar(seed: int, size_bytes: int) -> bytes:
    """A layer of two files."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in {f"f{seed}": os.urandom(size_bytes), "same": b"same"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return raw.getvalue()


LARGE = layer_tar(1, 2_500_000)
LAYERS = [layer_tar(0, 10), LARGE, layer_tar(2, 100_000), LARGE]

Made = tuple[LayerSource, EngineImage]


def _folders(folder: Path) -> Made:
    return Folders(folder), write_layer_store(folder, LAYERS)


def _blobs(pack: Callable[[bytes], bytes]) -> Callable[[Path], Made]:
    return lambda folder: (Folders(folder), write_content_store(folder, LAYERS, pack=pack))


def _saved(version: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        engine = MemoryEngine(version=version)
        return SaveStream(engine, folder), engine.add_image("test/image:1", LAYERS)

    return make


def _saved_containerd(folder: Path) -> Made:
    engine = MemoryEngine(version="28.5.2", store="containerd")
    return SaveStream(engine, folder), engine.add_image("test/image:1", LAYERS)


MAKERS: dict[str, Callable[[Path], Made]] = {
    "layer store": _folders,
    "content store, raw": _blobs(lambda layer: layer),
    "content store, gzip": _blobs(lambda layer: gzip.compress(layer[:1000]) + gzip.compress(layer[1000:])),
    "content store, zstd": _blobs(lambda layer: zstandard.compress(layer[:1000]) + zstandard.compress(layer[1000:])),
    "save, before 25": _saved("20.10.24"),
    "save, 25 and later": _saved("28.5.2"),
    "save, containerd": _saved_containerd,
}


@pytest.fixture(params=list(MAKERS))
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    """Each source, with an image in it."""
    return MAKERS[request.param](tmp_path)


def below(folder: Path, name: str = "*") -> list[Path]:
    """Everything of that name in a folder."""
    return sorted(folder.rglob(name))


async def read(source: LayerSource, image: EngineImage, diff_id: str) -> bytes:
    """A whole layer."""
    async with source.layer(image, diff_id) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_every_layer_comes_as_its_diff_id_says(made: Made) -> None:
    """Byte for byte, whatever the order they are asked for in."""
    source, image = made
    for layer, diff_id in list(zip(LAYERS, image.diff_ids, strict=True))[::-1]:
        assert await read(source, image, diff_id) == layer


async def test_a_size_that_is_told_is_exact(made: Made) -> None:
    """The size of a layer's tar, or nothing."""
    source, image = made
    for layer, diff_id in zip(LAYERS, image.diff_ids, strict=True):
        assert await source.size(image, diff_id) in {None, len(layer)}


async def test_the_config_names_the_layers(made: Made) -> None:
    """The config's digest is the image id where the engine knows it."""
    source, image = made
    config = await source.config(image)
    assert ImageConfig.parse(config).rootfs.diff_ids == image.diff_ids
    assert image.image_id in {None, sha256(config)}


async def test_a_layer_of_another_image_is_unreadable(made: Made) -> None:
    """A layer that the image does not have."""
    source, image = made
    with pytest.raises(LayerUnreadable):
        await read(source, image, sha256(b"another"))


async def test_an_unknown_image_is_unreadable(made: Made) -> None:
    """An image that is not there."""
    source, image = made
    known = image.image_id is not None
    gone = dataclasses.replace(
        image, local_id=sha256(b"gone"), image_id=sha256(b"gone") if known else None, diff_ids=(sha256(b"layer"),)
    )
    with pytest.raises(LayerUnreadable):
        await source.config(gone)
    with pytest.raises(LayerUnreadable):
        await read(source, gone, gone.diff_ids[0])


async def test_leaving_a_layer_early_leaves_nothing_open(made: Made, tmp_path: Path) -> None:
    """A reader that stops after a chunk: every file is closed, the scratch folder is empty."""
    source, image = made
    before = sorted(os.listdir("/proc/self/fd"))
    files = below(tmp_path)
    async with source.layer(image, image.diff_ids[1]) as chunks:
        assert await anext(chunks)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert below(tmp_path) == files


@pytest.mark.parametrize("place", ["new/folder", "file/folder"])
async def test_what_a_save_unpacks_lies_in_the_scratch_folder(tmp_path: Path, place: str) -> None:
    """It is made when first needed; where it cannot be, the system's own place serves."""
    (tmp_path / "file").touch()
    engine = MemoryEngine(version="20.10.24")
    image = engine.add_image("test/image:1", LAYERS)
    source = SaveStream(engine, tmp_path / place)
    assert await read(source, image, image.diff_ids[1]) == LAYERS[1]
    assert (tmp_path / place).is_dir() == place.startswith("new")


@pytest.mark.parametrize("version", ["20.10.24", "28.5.2"])
async def test_a_save_gives_all_wanted_layers_in_one_pass(tmp_path: Path, version: str) -> None:
    """One export, each wanted layer once, and the config comes with it."""
    engine = MemoryEngine(version=version)
    image = engine.add_image("test/image:1", LAYERS)
    source: LayerSource = SaveStream(engine, tmp_path)
    assert isinstance(source, SequentialSource)
    wanted = dict(zip(image.diff_ids[:2], LAYERS, strict=False))
    found = {}
    async with source.layers(image, tuple(wanted)) as opened:
        async for layer in opened:
            found[layer.diff_id] = b"".join([chunk async for chunk in layer.chunks])
            assert layer.size_bytes == len(found[layer.diff_id])
    assert found == wanted
    assert sha256(await source.config(image)) == image.image_id
    assert engine.counts == {"save": 1}


@pytest.mark.parametrize("version", ["20.10.24", "28.5.2"])
async def test_a_layer_not_read_is_passed_over(tmp_path: Path, version: str) -> None:
    """A consumer that takes only the head of a layer still gets the next one whole."""
    engine = MemoryEngine(version=version)
    image = engine.add_image("test/image:1", LAYERS)
    sizes = {}
    async with SaveStream(engine, tmp_path).layers(image, image.diff_ids) as opened:
        async for layer in opened:
            sizes[layer.diff_id] = len(await anext(layer.chunks))
    assert set(sizes) == set(image.diff_ids)


@pytest.mark.parametrize("version", ["20.10.24", "28.5.2"])
@pytest.mark.parametrize("after", [0, 300_000, 1_500_000])
async def test_a_save_that_breaks_off_keeps_its_reason(tmp_path: Path, version: str, after: int) -> None:
    """What ended the stream comes out: the engine away, or the transfer failed."""
    engine = MemoryEngine(version=version)
    image = engine.add_image("test/image:1", LAYERS)
    for error in (EngineUnavailable("away"), TransferFailed("broke")):
        engine.faults["save"] = Fault(after_bytes=after, error=error)
        with pytest.raises(type(error), match=str(error)):
            await read(SaveStream(engine, tmp_path), image, image.diff_ids[1])
    assert below(tmp_path) == []


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
async def test_a_blob_is_given_as_it_lies(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """Digest, size and codec of the blob, and its own bytes."""
    image = write_content_store(tmp_path, LAYERS, pack=pack)
    source: LayerSource = Folders(tmp_path)
    assert isinstance(source, BlobSource)
    layer = await source.blob(image, image.diff_ids[1])
    assert layer is not None
    async with source.stored(layer) as chunks:
        content = b"".join([chunk async for chunk in chunks])
    assert sha256(content) == layer.digest
    assert len(content) == layer.size_bytes
    assert layer.codec == {gzip.compress: "gzip", zstandard.compress: "zstd"}[pack]


async def test_a_classic_store_has_no_blobs(tmp_path: Path) -> None:
    """There the layer is a folder."""
    source = Folders(tmp_path)
    image = write_layer_store(tmp_path, LAYERS)
    assert await source.blob(image, image.diff_ids[0]) is None


@pytest.mark.parametrize("spoil", ["cut", "change", "remove"])
async def test_a_blob_that_is_spoilt_is_not_passed_on_as_the_layer(tmp_path: Path, spoil: str) -> None:
    """A compressed blob that does not unpack to its end is unreadable."""
    image = write_content_store(tmp_path, LAYERS, pack=gzip.compress)
    source = Folders(tmp_path)
    layer = await source.blob(image, image.diff_ids[1])
    assert layer is not None
    [path] = below(tmp_path, layer.digest.removeprefix("sha256:"))
    content = path.read_bytes()
    if spoil == "cut":
        path.write_bytes(content[:-100])
    elif spoil == "change":
        path.write_bytes(content[:1000] + bytes(1000) + content[2000:])
    else:
        path.unlink()
    with pytest.raises(LayerUnreadable):
        await read(source, image, image.diff_ids[1])


async def test_the_sources_of_an_engine_are_best_first(tmp_path: Path) -> None:
    """Its folders where they can be read, then what every engine can do."""
    engine = MemoryEngine()
    assert [source.name for source in layer_sources(engine, engine_root=tmp_path)] == ["layers", "save"]
    assert [source.name for source in layer_sources(engine, engine_root=None)] == ["save"]
