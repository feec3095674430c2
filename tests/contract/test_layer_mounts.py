"""Conformance of the `LayerMounts` port, on the fake in memory and the kernel's mounts of a real registry's blobs."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from events.messages import Layer, PresentImage
from services.adapters.erofs_index import IndexMaker
from services.adapters.kernel_mounts import mounts_below, unmount
from services.adapters.layer_folder import LayerFolder
from services.adapters.memory_layer_mounts import MemoryLayerMounts
from services.core.images.encodings import MEDIA_TYPES
from services.core.images.manifests import OCI_CONFIG, Descriptor, Manifest
from services.core.images.manifests import sha256 as sha256_of
from services.core.ranges.ranges import DesiredImage
from services.errors import LayersNotMounted
from services.ports import LayerMounts
from tests.integration.hard_layers import LayerTar
from tests.laboratory import Lab, mkfs_erofs


@dataclass
class Subject:
    """Mounts of one kind, and ways to put a layer behind them, raw and compressed."""

    mounts: LayerMounts
    add: Callable[[bytes], Layer]

    def add_packed(self, tar: bytes, level: int = 9) -> Layer:
        blob = self.add(gzip.compress(tar, level, mtime=0))
        return Layer(digest=blob.digest, diff_id=layer_of(tar).digest, size_bytes=blob.size_bytes, codec="gzip")


def layer_of(tar: bytes) -> Layer:
    digest = f"sha256:{sha256(tar).hexdigest()}"
    return Layer(digest=digest, diff_id=digest, size_bytes=len(tar))


@pytest.fixture(params=["memory", pytest.param("kernel", marks=pytest.mark.real)])
async def subject(request: pytest.FixtureRequest, tmp_path: Path, lab: Lab) -> AsyncIterator[Subject]:
    """One kind in turn."""
    if request.param == "memory":
        blobs = set[str]()

        def remember(tar: bytes) -> Layer:
            blobs.add(layer_of(tar).digest)
            return layer_of(tar)

        yield Subject(MemoryLayerMounts(blobs), remember)
        return
    folder, storage = tmp_path / "mounts", tmp_path / "storage"
    storage.mkdir()

    def put(tar: bytes) -> Layer:
        layer = layer_of(tar)
        digits = layer.digest.removeprefix("sha256:")
        blob = storage / "docker/registry/v2/blobs/sha256" / digits[:2] / digits / "data"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(tar)
        return layer

    with mkfs_erofs(lab.cache) as program:
        mounts = LayerFolder(folder, storage=storage, indexes=IndexMaker(folder / "index", program=str(program)))
        try:
            yield Subject(mounts, put)
        finally:
            for point in reversed(mounts_below(folder)):
                unmount(point.path)


def image_of(add: Callable[[bytes], Layer], name: str, layer: Layer) -> DesiredImage:
    """An image of one layer that the registry has."""
    config = json.dumps(
        {"architecture": "amd64", "os": name, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}}
    ).encode()
    manifest = Manifest.write(
        Descriptor(media_type=OCI_CONFIG, digest=sha256_of(config), size=len(config)),
        (Descriptor(media_type=MEDIA_TYPES[layer.codec], digest=layer.digest, size=layer.size_bytes),),
    )
    for content in (config, manifest.content):
        add(content)
    return DesiredImage(
        reference=f"docker.io/library/{name}:1",
        image_id=sha256_of(config),
        diff_ids=(layer.diff_id,),
        deployment_id="d-1",
        source=f"registry:5000/{name}@{manifest.digest}",
    )


async def names(subject: Subject, range_id: str = "r-1") -> dict[str, str]:
    """The folders a range is shown, and their grants."""
    shown = (await subject.mounts.shown()).get(range_id)
    return {} if shown is None else {name: one.grant for name, one in shown.layers.items()}


def a_tar(content: bytes) -> bytes:
    return LayerTar().add("t/file", content).bytes()


async def test_layers_are_shown_under_the_digits_of_their_diff_id(subject: Subject) -> None:
    """Each layer has a folder; one that occurs twice in an image has two."""
    one, two = subject.add(a_tar(b"1")), subject.add(a_tar(b"2"))
    await subject.mounts.show("r-1", [one, two, one], grant="t-1", engine_id="e-1")
    first, second = (layer.diff_id.removeprefix("sha256:") for layer in (one, two))
    assert await names(subject) == {first: "t-1", second: "t-1", f"{first}.2": "t-1"}


async def test_compressed_layers_are_shown_like_others(subject: Subject) -> None:
    """A layer that the registry has in several forms has a folder for each, and each is given back by itself."""
    raw, packed = subject.add(a_tar(b"1")), subject.add_packed(a_tar(b"1"))
    read = list[str]()
    await subject.mounts.show("r-1", [raw], grant="t-1", engine_id="e-1")
    for grant in ("t-2", "t-3"):
        await subject.mounts.show(
            "r-1", [packed, packed], grant=grant, engine_id="e-1", read=lambda digest, _: read.append(digest)
        )
    digits, blob = raw.diff_id.removeprefix("sha256:"), packed.digest.removeprefix("sha256:")
    second = {f"{digits}.{blob}": "t-3", f"{digits}.{blob}.2": "t-3"}
    assert await names(subject) == {digits: "t-1", **second}
    assert set(read) == {packed.digest}
    assert await subject.mounts.restore() == []
    await subject.mounts.release("r-1", {digits: "t-1"})
    assert await names(subject) == second
    assert (await subject.mounts.shown())["r-1"].digests == {packed.digest}


async def test_the_next_engine_starts_with_compressed_layers_as_well(subject: Subject) -> None:
    """Those that it is shown."""
    packed = subject.add_packed(a_tar(b"1"))
    wanted = image_of(subject.add, "web", packed)
    await subject.mounts.show("r-1", [packed], grant="t-1", engine_id="e-1")
    await subject.mounts.seed("r-1", [wanted])
    seeded = (await subject.mounts.shown())["r-1"]
    assert [(image.image, set(image.layers)) for image in seeded.seeded] == [(wanted, set(seeded.layers))]


async def test_a_layer_is_shown_until_each_transfer_has_given_it_back(subject: Subject) -> None:
    """In any order; a release for a transfer that did not ask for it takes nothing away."""
    one = subject.add(a_tar(b"1"))
    name = one.diff_id.removeprefix("sha256:")
    for first, second in (("t-1", "t-2"), ("t-2", "t-1")):
        await subject.mounts.show("r-1", [one], grant="t-1", engine_id="e-1")
        await subject.mounts.show("r-1", [one], grant="t-2", engine_id="e-1")
        assert await names(subject) == {name: "t-2"}
        await subject.mounts.release("r-1", {name: first, "0" * 64: "t-2"})
        assert await names(subject) == {name: second}
        await subject.mounts.release("r-1", {name: first})
        assert await names(subject) == {name: second}
        await subject.mounts.release("r-1", {name: second})
        assert await names(subject) == {}


async def test_another_engine_begins_with_nothing(subject: Subject) -> None:
    """A range that was recreated uses none of what the engine before it was granted."""
    one = subject.add(a_tar(b"1"))
    await subject.mounts.show("r-1", [one], grant="t-1", engine_id="e-1")
    await subject.mounts.engine_is("r-1", "e-1")
    assert len(await names(subject)) == 1
    await subject.mounts.engine_is("r-1", "e-2")
    assert await names(subject) == {}


async def test_the_next_engine_starts_with_what_is_wanted_and_shown(subject: Subject) -> None:
    """It keeps that, if it has it; an image that is wanted no more, or whose layers are given back, is in no seed."""
    one, two = subject.add(a_tar(b"1")), subject.add(a_tar(b"2"))
    first = one.diff_id.removeprefix("sha256:")
    wanted, other = (image_of(subject.add, name, layer) for name, layer in (("web", one), ("other", two)))
    await subject.mounts.show("r-1", [one], grant="t-1", engine_id="e-1")
    await subject.mounts.seed("r-1", [wanted, other])
    seeded = (await subject.mounts.shown())["r-1"]
    assert seeded.seed
    assert [(image.image, image.layers) for image in seeded.seeded] == [(wanted, (first,))]
    await subject.mounts.seed("r-1", [wanted, other])
    assert (await subject.mounts.shown())["r-1"] == seeded
    assert await subject.mounts.restore() == []

    await subject.mounts.show("r-1", [two], grant="t-2", engine_id="e-1")
    has = PresentImage(references=(wanted.reference,), diff_ids=wanted.diff_ids, image_id=wanted.image_id)
    await subject.mounts.engine_is("r-1", "e-2", [has])
    assert await names(subject) == {first: "t-1"}
    await subject.mounts.seed("r-1", [])
    assert (await subject.mounts.shown())["r-1"].seed == ""
    await subject.mounts.seed("r-1", [wanted])
    await subject.mounts.release("r-1", {first: "t-1"})
    assert await subject.mounts.shown() == {}
    await subject.mounts.seed("r-1", [wanted])
    assert await subject.mounts.shown() == {}


async def test_a_layer_that_the_registry_lacks_is_refused(subject: Subject) -> None:
    """Nothing of that image is shown, and what was shown before stays."""
    one, missing = subject.add(a_tar(b"1")), layer_of(a_tar(b"missing"))
    await subject.mounts.show("r-1", [one], grant="t-1", engine_id="e-1")
    with pytest.raises(LayersNotMounted):
        await subject.mounts.show("r-1", [subject.add(a_tar(b"2")), missing], grant="t-2", engine_id="e-1")
    assert list((await names(subject)).values()) == ["t-1"]


async def test_preparing_shows_nothing(subject: Subject) -> None:
    """What is prepared is shown as anything else; what the registry lacks is refused."""
    one, packed = subject.add(a_tar(b"1")), subject.add_packed(a_tar(b"2"))
    for layer in (one, packed) * 2:
        await subject.mounts.prepare(layer)
    assert await subject.mounts.shown() == {}
    await subject.mounts.show("r-1", [one, packed], grant="t-1", engine_id="e-1", store="classic")
    assert list((await names(subject)).values()) == ["t-1", "t-1"]
    with pytest.raises(LayersNotMounted):
        await subject.mounts.prepare(layer_of(a_tar(b"missing")))


async def test_ranges_are_apart(subject: Subject) -> None:
    """What one gives back stays for the other, and a range that is forgotten takes nothing with it."""
    one = subject.add(a_tar(b"1"))
    for range_id in ("r-1", "r-2"):
        await subject.mounts.show(range_id, [one], grant=f"t-{range_id}", engine_id=None)
    await subject.mounts.forget("r-1")
    assert (await names(subject), len(await names(subject, "r-2"))) == ({}, 1)
    await subject.mounts.forget("r-1")
