"""Bundles between two real registries, and read by another tool."""

from __future__ import annotations

import asyncio
import io
import json
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from services.adapters.registry import HttpRegistry
from services.collector.storage import RegistryStorage
from services.content.bundle import BundleReader, create_bundle, load_bundle
from services.core.images.bundles import BundleList
from services.core.images.manifests import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest, sha256
from services.errors import BadArchive, BlobDamaged, NoSpace, NotFound, TransferFailed, WrongContent
from services.ports import Registry
from tests.laboratory import Lab, RegistryServer

pytestmark = pytest.mark.real


@dataclass
class Sites:
    """Where images come from, and a host without a network."""

    here: Registry
    there: Registry
    name: str

    async def push(self, tag: str, *layers: bytes) -> Manifest:
        repository = self.name
        diff_ids = [sha256(layer) for layer in layers]
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        blobs = [json.dumps(config).encode(), *layers]
        for blob in blobs:
            await self.here.put_blob(repository, sha256(blob), len(blob), _once(blob))
        described = [Descriptor(media_type=OCI_LAYER, digest=sha256(blob), size=len(blob)) for blob in blobs]
        named = Descriptor(media_type=OCI_CONFIG, digest=described[0].digest, size=described[0].size)
        manifest = Manifest.write(named, tuple(described[1:]))
        await self.here.put_manifest(repository, tag, manifest)
        return manifest

    async def bundle(self, *tags: str, since: BundleList | None = None) -> tuple[io.BytesIO, BundleList]:
        out = io.BytesIO()
        names = [f"{self.name}:{tag}" for tag in tags]
        return out, await create_bundle(self.here, names, out, since or BundleList())

    async def load(self, bundle: io.BytesIO) -> list[tuple[str, int, int]]:
        loaded = load_bundle(self.there, BundleReader(bundle))
        return [(one.tag, one.sent_bytes, one.reused_bytes) async for one in loaded]


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def open_full() -> IO[bytes]:
    """A file on a disk without a free byte."""
    return Path("/dev/full").open("wb", buffering=0)


@pytest.fixture(scope="module")
def other_registry(lab: Lab) -> RegistryServer:
    """The registry of another host."""
    return lab.registry("bundle-target")


@pytest.fixture
async def sites(registry_server: RegistryServer, other_registry: RegistryServer) -> AsyncIterator[Sites]:
    async with (
        HttpRegistry.open(registry_server.url, address=registry_server.address) as here,
        HttpRegistry.open(other_registry.url, address=other_registry.address) as there,
    ):
        yield Sites(here, there, f"bundle/{uuid.uuid4().hex}")


async def test_images_arrive_with_the_same_digest(sites: Sites) -> None:
    """A layer that two images share is in the bundle once, and sent once."""
    shared = os.urandom(3000)
    first, second = await sites.push("1", shared), await sites.push("2", shared, os.urandom(500))
    bundle, after = await sites.bundle("1", "2")
    loaded = await sites.load(bundle)
    assert [tag for tag, _, _ in loaded] == ["1", "2"]
    assert loaded[1][2] == 3000
    for tag, manifest in (("1", first), ("2", second)):
        assert (await sites.there.manifest(sites.name, tag) or (None, None))[1] == manifest
    assert len(after.blobs) == 6  # two configs, two layers, two manifests


async def test_a_bundle_since_another_has_only_what_is_new(sites: Sites) -> None:
    """It is refused where the earlier one is missing, and completes a host that has it."""
    base = os.urandom(100_000)
    await sites.push("1", base)
    await sites.push("2", base, os.urandom(500))
    first, after = await sites.bundle("1")
    second, both = await sites.bundle("2", since=after)
    assert len(second.getvalue()) < 10_000
    assert set(both.blobs) > set(after.blobs)
    with pytest.raises(NotFound, match="load the bundle before this one"):
        await sites.load(second)
    await sites.load(first)
    await sites.load(second)
    assert await sites.there.manifest(sites.name, "2") is not None


async def test_a_load_again_sends_nothing(sites: Sites) -> None:
    """What broke off goes on: blobs that are there are not sent."""
    manifest = await sites.push("1", os.urandom(3000), os.urandom(500))
    bundle, _ = await sites.bundle("1")
    layer = manifest.body.layers[0]
    await sites.there.put_blob(sites.name, layer.digest, layer.size, BundleReader(bundle).chunks(layer.digest))
    ((_, sent, reused),) = await sites.load(bundle)
    assert (sent, reused) == (500 + manifest.body.config.size, 3000)
    ((_, sent, _),) = await sites.load(bundle)
    assert sent == 0


async def test_a_bundle_that_was_changed_or_cut_is_refused(sites: Sites) -> None:
    """Nothing appears under the tag."""
    layer = os.urandom(3000)
    await sites.push("1", layer)
    bundle, _ = await sites.bundle("1")
    content = bundle.getvalue()
    for bad in (content.replace(layer, layer[:-1] + bytes([layer[-1] ^ 1])), content[:2500], b"no tar at all"):
        with pytest.raises((BadArchive, WrongContent, TransferFailed)):
            await sites.load(io.BytesIO(bad))
        assert await sites.there.manifest(sites.name, "1") is None


async def test_damage_in_the_registry_is_told_and_not_relied_on(sites: Sites, other_registry: RegistryServer) -> None:
    """A layer that was cut on its disk; once it was set aside the same bundle brings it back."""
    layer = os.urandom(3000)
    await sites.push("1", layer)
    bundle, _ = await sites.bundle("1")
    await sites.load(bundle)
    hurt = sha256(layer).removeprefix("sha256:")
    storage = RegistryStorage(other_registry.storage)
    os.truncate(storage.folder(hurt) / "data", 100)
    told: list[str] = []

    async def tell(digest: str) -> None:
        told.append(digest)

    with pytest.raises(BlobDamaged, match="100 bytes, not 3000"):
        assert [one async for one in load_bundle(sites.there, BundleReader(bundle), tell)]
    assert told == [sha256(layer)]
    storage.set_damaged_aside(hurt)
    ((_, sent, _),) = await sites.load(bundle)
    assert sent == 3000
    assert storage.is_intact(hurt)


async def test_a_bundle_that_does_not_fit_says_so(sites: Sites) -> None:
    """Of the disk that it is written to."""
    await sites.push("1", os.urandom(100_000))
    with open_full() as full, pytest.raises(NoSpace, match="does not fit"):
        await create_bundle(sites.here, [f"{sites.name}:1"], full, BundleList())


async def test_an_image_that_is_not_there_is_told(sites: Sites) -> None:
    """Before the first byte, so that no bundle lacks it without a word and no hours are spent on one that fails."""
    await sites.push("1", os.urandom(1000))
    out = io.BytesIO()
    with pytest.raises(NotFound, match="the registry has no image"):
        await create_bundle(sites.here, [f"{sites.name}:1", f"{sites.name}:none"], out, BundleList())
    assert out.getvalue() == b""


async def test_skopeo_reads_a_bundle(sites: Sites, tmp_path: Path) -> None:
    """As an OCI archive, image by image."""
    manifest = await sites.push("1", os.urandom(3000))
    await sites.push("2", os.urandom(500))
    bundle, _ = await sites.bundle("1", "2")
    (tmp_path / "bundle.tar").write_bytes(bundle.getvalue())
    image = f"oci-archive:{tmp_path}/bundle.tar:docker.io/{sites.name}:1"
    process = await asyncio.create_subprocess_exec(
        *("skopeo", "inspect", "--raw", image), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complaint = await process.communicate()
    assert process.returncode == 0, complaint
    assert said == manifest.content
