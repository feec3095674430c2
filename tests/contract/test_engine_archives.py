"""Conformance of the `Engine` port, on real engines and on the fake: archives that are saved and loaded."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator

import pytest

from services.adapters.save_stream import SaveStream
from services.core.deployments.offers import Layout
from services.core.images.manifests import sha256
from services.errors import BadArchive, LayerUnreadable, NotFound
from tests.contract.engine_subject import Subject, build_image, load, saved, statuses
from tests.images import LAYOUTS, archive_of, config_of, tar_of


async def test_a_saved_image_loads_as_the_same_image(subject: Subject, unique: str) -> None:
    """Save, remove, load: the same content under the same name."""
    name = f"docker.io/test/{unique}:1"
    context = {"Dockerfile": b"FROM scratch\nCOPY a /a\nCOPY b /b\n", "a": unique.encode(), "b": b"b" * 200_000}
    image = await build_image(subject.engine, name, context)
    archive = await saved(subject.engine, [name])
    await subject.engine.untag(name)
    assert await subject.engine.inspect(image.local_id) is None
    assert any(f"test/{unique}:1" in line for line in await load(subject.engine, archive))
    again = await subject.engine.inspect(name)
    assert again is not None
    assert (again.local_id, again.diff_ids) == (image.local_id, image.diff_ids)


async def test_saving_what_is_not_there_is_not_found(subject: Subject, unique: str) -> None:
    """No archive of nothing."""
    with pytest.raises(NotFound):
        await saved(subject.engine, [f"docker.io/test/{unique}:1"])


@pytest.mark.parametrize("copies", ["whole", "first damaged", "second damaged"])
async def test_packed_layers_and_each_copy_of_one(subject: Subject, unique: str, copies: str) -> None:
    """A layer's packing is taken off; of a layer that is there twice, each file has to be right.

    On a containerd store the same file name is the same blob, so a copy is a file of its own there too.
    """
    layer, name = tar_of({"t/file": unique.encode() * 2000}), f"docker.io/test/{unique}:1"
    files = {"first.tar.gz": gzip.compress(layer, mtime=0), "second.tar": layer}
    if copies != "whole":
        damaged = layer.replace(unique.encode(), b"?" * len(unique), 1)
        files |= {"first.tar.gz": gzip.compress(damaged)} if copies.startswith("first") else {"second.tar": damaged}
    rows = [{"Config": "c.json", "RepoTags": [f"test/{unique}:1"], "Layers": list(files)}]
    files |= {"c.json": config_of([sha256(layer)] * 2), "manifest.json": json.dumps(rows).encode()}
    if copies == "whole":
        await load(subject.engine, tar_of(files))
        image = await subject.engine.inspect(name)
        assert image is not None
        assert image.diff_ids == (sha256(layer),) * 2
    else:
        with pytest.raises(BadArchive):
            await load(subject.engine, tar_of(files))


@pytest.mark.parametrize("keep", [0.3, 0.9])
async def test_an_archive_cut_off_is_a_bad_archive(subject: Subject, unique: str, keep: float) -> None:
    """Half an archive is refused, and nothing of it gets a name."""
    name = f"docker.io/test/{unique}:1"
    await build_image(subject.engine, name, {"Dockerfile": b"FROM scratch\nCOPY a /\n", "a": os.urandom(1_000_000)})
    archive = await saved(subject.engine, [name])
    await subject.engine.untag(name)
    with pytest.raises(BadArchive):
        await load(subject.engine, archive[: int(len(archive) * keep)])
    assert await subject.engine.inspect(name) is None


async def test_what_is_no_archive_is_a_bad_archive(subject: Subject) -> None:
    """Neither noise nor a tar of something else is an image."""
    with pytest.raises(BadArchive):
        await load(subject.engine, b"this is no tar " * 4096)
    with pytest.raises(BadArchive):
        await load(subject.engine, tar_of({"readme": b"not an image"}))


async def test_why_an_archive_broke_off_is_told(subject: Subject, unique: str) -> None:
    """An error of the archive's source comes out as it is, not as the engine's complaint about the stream's end."""

    async def broken() -> AsyncIterator[bytes]:
        yield tar_of({"a": b"a" * 100_000})[:50_000]
        raise LayerUnreadable(f"layer {unique} changed under the reader")

    with pytest.raises(LayerUnreadable, match=unique):
        async with subject.engine.load(broken()) as progress:
            await statuses(progress)


@pytest.mark.parametrize("held", [(), (1,), (0, 1)], ids=["config only", "top layer", "all"])
async def test_a_thin_archive_loads_where_the_rest_is_there(
    subject: Subject, unique: str, held: tuple[int, ...]
) -> None:
    """Layers that the engine has need not be in the archive, in the layout that its store takes."""
    layers = [tar_of({"base": unique.encode()}), tar_of({"top": unique.encode()})]
    layout = LAYOUTS[(await subject.engine.info()).store]
    there = f"docker.io/test/{unique}:there"
    await load(subject.engine, archive_of(there, layers if not held else layers[:1], layout=layout))
    config = config_of([sha256(layer) for layer in layers], author="another")
    name = f"docker.io/test/{unique}:1"
    await load(subject.engine, archive_of(name, layers, layout=layout, held=held, config=config))
    loaded = await subject.engine.inspect(name)
    assert loaded is not None
    assert loaded.diff_ids == tuple(sha256(layer) for layer in layers)
    assert loaded.image_id in {None, sha256(config)}
    assert sha256(await SaveStream(subject.engine).config(loaded)) == sha256(config)
    raw = loaded.diff_ids if layout == "oci" else ()
    assert loaded.raw_layers == raw
    other = f"docker.io/test/{unique}:2"
    await subject.engine.tag(name, other)
    tagged = await subject.engine.inspect(other)
    assert tagged is not None
    assert tagged.raw_layers == raw


@pytest.mark.parametrize("layout", ["docker", "oci"])
async def test_a_thin_archive_without_its_base_is_no_image(subject: Subject, unique: str, layout: Layout) -> None:
    """A layer that neither the archive nor the engine has: an error, or at least no image of that name."""
    layers = [tar_of({"base": unique.encode()}), tar_of({"top": unique.encode()})]
    name = f"docker.io/test/{unique}:1"
    with pytest.raises(BadArchive):
        await load(subject.engine, archive_of(name, layers, layout=layout, held=[1]))
    assert await subject.engine.inspect(name) is None


async def test_leaving_a_load_ends_the_engines_work(subject: Subject, unique: str) -> None:
    """A load that is cancelled in the middle leaves no image and does not hold the engine up."""
    name = f"docker.io/test/{unique}:1"
    await build_image(subject.engine, name, {"Dockerfile": b"FROM scratch\nCOPY a /\n", "a": unique.encode() * 50_000})
    archive = await saved(subject.engine, [name])
    await subject.engine.untag(name)
    reached = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield archive[: len(archive) // 2]
        reached.set()
        await asyncio.Event().wait()

    async def loading() -> None:
        async with subject.engine.load(slow()) as progress:
            await statuses(progress)

    task = asyncio.create_task(loading())
    await asyncio.wait_for(reached.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await subject.engine.inspect(name) is None
    await load(subject.engine, archive)
    assert await subject.engine.inspect(name) is not None
