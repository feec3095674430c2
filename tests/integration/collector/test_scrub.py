"""Scrub and repair of a registry's storage."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.adapters.registry import HttpRegistry
from services.collector.layout import DAMAGED
from services.collector.scrub import Scrub
from services.core.images.manifests import sha256
from tests.integration.collector.test_sweep import Store, hexed
from tests.laboratory import RegistryServer

pytestmark = pytest.mark.real


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("part", ["layer", "manifest"])
@pytest.mark.parametrize("damage", [flip, cut, empty])
async def test_damage_is_found_and_a_push_repairs_it(
    registry_server: RegistryServer, damage: Callable[[Path], None], part: str
) -> None:
    """The bad bytes are taken away and the image is named; the same push again makes it whole, and the next scrub frees
    them."""
    async with HttpRegistry.open(registry_server.url, address=registry_server.address) as registry:
        store = Store(registry, registry_server.storage)
        layer = os.urandom(2000)
        manifest = await store.push("1", layer)
        hurt = hexed(sha256(layer) if part == "layer" else manifest.digest)
        damage(store.storage.folder(hurt) / "data")
        mark = await store.sweep.mark()
        result = await Scrub(store.storage).scrub(mark, [store.storage.blob(hurt)])
        assert hurt in result.damaged
        assert (store.name, "1") in result.affected
        await store.put(layer)
        await registry.put_manifest(store.name, "1", manifest)
        assert store.storage.is_intact(hurt)
        found = await registry.manifest(store.name, "1")
        assert found is not None
        assert found[1] == manifest
        bad = store.storage.folder(hurt) / DAMAGED
        assert bad.exists()
        assert (await Scrub(store.storage).scrub(mark, [store.storage.blob(hurt)])).damaged == []
        assert not bad.exists()


async def test_a_cut_layer_is_found_by_its_size_alone(registry_server: RegistryServer) -> None:
    """Every collection compares sizes, which costs no reading."""
    async with HttpRegistry.open(registry_server.url, address=registry_server.address) as registry:
        store = Store(registry, registry_server.storage)
        layer = os.urandom(2000)
        manifest = await store.push("1", layer)
        cut(store.storage.folder(hexed(sha256(layer))) / "data")
        mark = await store.sweep.mark()
        blobs = [store.storage.blob(hexed(sha256(layer))), store.storage.blob(hexed(manifest.digest))]
        assert (await Scrub(store.storage).check_sizes(mark, blobs)).damaged == [hexed(sha256(layer))]
        assert await registry.blob_size(store.name, sha256(layer)) is None


async def test_a_blob_that_vanishes_meanwhile_is_no_damage(registry_server: RegistryServer) -> None:
    """A collection may take it between the listing and the reading."""
    async with HttpRegistry.open(registry_server.url, address=registry_server.address) as registry:
        store = Store(registry, registry_server.storage)
        blob = await store.put(os.urandom(100))
        state = store.storage.blob(hexed(blob.digest))
        store.storage.quarantine(hexed(blob.digest), 0.0)
        assert (await Scrub(store.storage).scrub(await store.sweep.mark(), [state])).damaged == []
