"""Reading layers out of a classic engine's folders."""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from services.adapters.layer_store import CHUNK_BYTES, LayerStore
from services.core.images.chain_ids import chain_ids
from services.core.images.image import EngineImage
from services.core.images.manifests import sha256
from services.errors import LayerUnreadable
from tests.layer_stores import diff_folder, write_layer_store


def layer_tar(files: dict[str, bytes]) -> bytes:
    """A tar of files and their folders."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return raw.getvalue()


async def read(store: LayerStore, image: EngineImage, diff_id: str) -> bytes:
    """A whole layer."""
    async with store.layer(image, diff_id) as chunks:
        return b"".join([chunk async for chunk in chunks])


LAYERS = [
    layer_tar({f"d{number % 7}/f{number}": os.urandom(number * 40) for number in range(300)}),
    layer_tar({"large": os.urandom(3 * CHUNK_BYTES + 17), "empty": b"", "after": b"x", "b" * 180: b"long name"}),
    layer_tar({}),
]


async def test_every_layer_is_the_tar_it_came_as(tmp_path: Path) -> None:
    """Small files, large files, empty ones and an empty layer: the same bytes, and the size known before."""
    image = write_layer_store(tmp_path, LAYERS)
    store = LayerStore(tmp_path)
    for layer, diff_id in zip(LAYERS, image.diff_ids, strict=True):
        assert await store.size(image, diff_id) == len(layer)
        assert await read(store, image, diff_id) == layer
    assert sha256(await store.config(image)) == image.image_id


async def test_chunks_are_neither_tiny_nor_huge(tmp_path: Path) -> None:
    """Small files are sent together; nothing is longer than two blocks."""
    image = write_layer_store(tmp_path, LAYERS)
    async with LayerStore(tmp_path).layer(image, image.diff_ids[0]) as chunks:
        sizes = [len(chunk) async for chunk in chunks]
    assert len(sizes) <= len(LAYERS[0]) // CHUNK_BYTES + 1
    assert max(sizes) <= 2 * CHUNK_BYTES


async def test_the_same_layer_twice_is_found(tmp_path: Path) -> None:
    """One diff ID in two places of an image."""
    image = write_layer_store(tmp_path, [LAYERS[0], LAYERS[1], LAYERS[0]])
    assert await read(LayerStore(tmp_path), image, image.diff_ids[2]) == LAYERS[0]


def _entry(root: Path, image: EngineImage) -> Path:
    return root / "image/overlay2/layerdb/sha256" / chain_ids(image.diff_ids)[0].removeprefix("sha256:")


def _shorten(root: Path, image: EngineImage) -> None:
    os.truncate(diff_folder(root, image) / "d5/f292", 5)


def _remove(root: Path, image: EngineImage) -> None:
    (diff_folder(root, image) / "d5/f292").unlink()


def _cut_list(root: Path, image: EngineImage) -> None:
    listed = _entry(root, image) / "tar-split.json.gz"
    os.truncate(listed, listed.stat().st_size // 2)


def _spoil_list(root: Path, image: EngineImage) -> None:
    (_entry(root, image) / "tar-split.json.gz").write_bytes(gzip.compress(b'{"type":9}\n'))


def _point_elsewhere(root: Path, image: EngineImage) -> None:
    (_entry(root, image) / "cache-id").write_text("../../secret")


def _other_layer(root: Path, image: EngineImage) -> None:
    (_entry(root, image) / "diff").write_text(sha256(b"other"))


def _forget(root: Path, image: EngineImage) -> None:
    (_entry(root, image) / "cache-id").unlink()


@pytest.mark.parametrize("change", [_shorten, _remove, _cut_list, _spoil_list, _point_elsewhere, _other_layer, _forget])
async def test_a_store_that_changed_is_unreadable(tmp_path: Path, change: Callable[[Path, EngineImage], None]) -> None:
    """Whatever is missing, short or spoilt: an error that another source can be tried after, never wrong bytes."""
    image = write_layer_store(tmp_path, LAYERS)
    change(tmp_path, image)
    with pytest.raises(LayerUnreadable, match=image.diff_ids[0][:15]):
        await read(LayerStore(tmp_path), image, image.diff_ids[0])


async def test_an_image_that_is_not_there_is_unreadable(tmp_path: Path) -> None:
    """Neither config nor layer nor size; nor a digest that is a path."""
    store = LayerStore(tmp_path)
    image = EngineImage(local_id="sha256:" + "0" * 64, image_id="sha256:" + "0" * 64, diff_ids=("sha256:" + "1" * 64,))
    with pytest.raises(LayerUnreadable, match="No such file"):
        await store.config(image)
    with pytest.raises(LayerUnreadable, match="No such file"):
        await store.size(image, image.diff_ids[0])
    with pytest.raises(LayerUnreadable, match="No such file"):
        await read(store, image, image.diff_ids[0])
    hostile = dataclasses.replace(image, image_id="sha256:../../../../etc/passwd", diff_ids=("sha256:../x",))
    with pytest.raises(LayerUnreadable, match="no digest"):
        await store.config(hostile)
    with pytest.raises(LayerUnreadable, match="no digest"):
        await store.size(hostile, hostile.diff_ids[0])


async def test_a_config_that_was_changed_is_unreadable(tmp_path: Path) -> None:
    """The config must be what its name says."""
    image = write_layer_store(tmp_path, [])
    (tmp_path / "image/overlay2/imagedb/content/sha256" / image.local_id.removeprefix("sha256:")).write_text("{}")
    with pytest.raises(LayerUnreadable, match="not what its name says"):
        await LayerStore(tmp_path).config(image)
