"""Garbage collection beside a running registry."""

import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.adapters.registry import HttpRegistry
from services.collector.storage import DELETED_TAGS, QUARANTINED, RegistryStorage
from services.collector.sweep import CollectionPolicy, Sweep
from services.content.image_signatures import ImageSignatures
from services.core.images.manifests import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest, sha256
from services.core.store.figures import repository_figures
from services.ports import Registry
from tests.laboratory import RegistryServer
from tests.signing import Signer

pytestmark = pytest.mark.real
DAY = 86400.0


class Store:
    """A registry of a test's own names, its storage, and a collection at a time of the test's choosing."""

    def __init__(self, registry: Registry, root: Path) -> None:
        self.registry = registry
        self.storage = RegistryStorage(root)
        self.name = f"sweep/{uuid.uuid4().hex}"
        self.later = 0.0
        self.pins: set[str] = set()
        self.mounted: set[str] = set()
        self.intents: set[str] = set()
        self.sweep = Sweep(
            self.storage,
            pins=self._read_pins,
            mounted=self._read_mounted,
            intents=self._read_intents,
            policy=CollectionPolicy(grace_seconds=DAY, keep_seconds=DAY),
            clock=lambda: time.time() + self.later,
        )

    async def _read_pins(self) -> set[str]:
        return self.pins

    async def _read_mounted(self) -> set[str]:
        return self.mounted

    async def _read_intents(self) -> set[str]:
        return self.intents

    async def put(self, content: bytes) -> Descriptor:
        digest = sha256(content)
        await self.registry.put_blob(self.name, digest, len(content), _once(content))
        return Descriptor(media_type=OCI_LAYER, digest=digest, size=len(content))

    async def push(self, tag: str, *layers: bytes) -> Manifest:
        config = await self.put(b'{"architecture":"amd64","os":"linux"}' + os.urandom(8).hex().encode())
        blobs = [await self.put(layer) for layer in layers]
        manifest = Manifest.write(
            Descriptor(media_type=OCI_CONFIG, digest=config.digest, size=config.size), tuple(blobs)
        )
        await self.registry.put_manifest(self.name, tag, manifest)
        return manifest

    async def age(self) -> None:
        """Two collections, a grace apart: what is unreferenced is ripe for the next one."""
        self.later += 2 * DAY
        await self.sweep.collect()
        self.later += 2 * DAY

    def there(self, digest: str) -> bool:
        return self.storage.blob(digest.removeprefix("sha256:")).size_bytes is not None


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.fixture
async def store(registry_server: RegistryServer) -> AsyncIterator[Store]:
    async with HttpRegistry.open(registry_server.url, address=registry_server.address) as registry:
        yield Store(registry, registry_server.storage)


def hexed(digest: str) -> str:
    return digest.removeprefix("sha256:")


async def test_a_deleted_tags_blobs_are_freed_and_a_shared_layer_stays(store: Store) -> None:
    """The tag goes first, then its manifest's link, then what nothing else names; what another image needs is whole."""
    shared, own = os.urandom(2000), os.urandom(3000)
    keep, gone = await store.push("keep", shared), await store.push("gone", shared, own)
    assert store.storage.delete_tag(store.name, "gone", hexed(gone.digest))
    assert await store.registry.manifest(store.name, "gone") is None
    await store.age()  # the manifest is seen without a tag
    await store.age()  # it loses its link
    await store.age()  # its blobs are seen without a reference
    set_aside = await store.sweep.collect()
    assert set_aside.quarantined >= 3  # manifest, config and the layer of its own
    assert not store.there(sha256(own))
    store.later += 2 * DAY
    freed = await store.sweep.collect()
    assert freed.removed == set_aside.quarantined
    assert freed.freed_bytes >= 3000
    assert await store.registry.blob_size(store.name, sha256(shared)) == 2000
    assert (await store.registry.manifest(store.name, "keep") or (None, None))[1] == keep


async def test_a_deleted_tag_is_listed_no_more_after_the_grace(store: Store) -> None:
    """The registry lists folders of tags, whatever they name; one that was pushed again stays, also after a kill."""
    for tag in ("gone", "back", "stays"):
        manifest = await store.push(tag, os.urandom(100))
        if tag != "stays":
            assert store.storage.delete_tag(store.name, tag, hexed(manifest.digest))
    assert sorted(await store.registry.tags(store.name)) == ["back", "gone", "stays"]
    await store.sweep.collect()
    assert len(await store.registry.tags(store.name)) == 3
    store.later += 2 * DAY
    await store.registry.put_manifest(store.name, "back", manifest)
    await store.sweep.collect()
    assert sorted(await store.registry.tags(store.name)) == ["back", "stays"]
    manifests = store.storage.repositories / store.name / "_manifests"
    (manifests / DELETED_TAGS).mkdir()
    (manifests / "tags/back").rename(manifests / DELETED_TAGS / "back")
    await store.sweep.collect()
    assert (await store.registry.manifest(store.name, "back") or (None, None))[1] == manifest
    assert not (manifests / DELETED_TAGS).exists()


async def test_quarantine_is_seen_at_once_and_undone_in_one_step(store: Store) -> None:
    """A blob set aside is missing for every client, and a restored one is as it was."""
    blob = await store.put(os.urandom(100))
    assert store.storage.quarantine(hexed(blob.digest), time.time())
    assert await store.registry.blob_size(store.name, blob.digest) is None
    assert store.storage.restore(hexed(blob.digest))
    assert await store.registry.blob_size(store.name, blob.digest) == 100
    assert not store.storage.restore(hexed(blob.digest))


async def test_nothing_younger_than_the_grace_is_set_aside(store: Store) -> None:
    """A blob uploaded a moment ago waits for its manifest."""
    blob = await store.put(os.urandom(100))
    await store.sweep.collect()
    store.later += DAY / 2
    await store.sweep.collect()
    assert store.there(blob.digest)


async def test_an_announced_blob_comes_back(store: Store) -> None:
    """What a push relies on is no candidate, and is restored where it was announced after the quarantine began."""
    blob = await store.put(os.urandom(100))
    await store.age()
    store.intents = {blob.digest}
    await store.sweep.collect()
    assert store.there(blob.digest)
    store.intents = set()
    await store.sweep.collect()
    assert not store.there(blob.digest)
    assert (store.storage.folder(hexed(blob.digest)) / QUARANTINED).exists()


async def test_a_blob_that_a_new_manifest_names_comes_back_from_quarantine(store: Store) -> None:
    """The next collection recovers it, with the link that its repository needs."""
    layer = os.urandom(500)
    blob = await store.put(layer)
    await store.age()
    await store.sweep.collect()
    assert not store.there(blob.digest)
    manifest = await store.push("again", layer)  # the upload writes the bytes anew beside the quarantined ones
    store.later += 2 * DAY
    await store.sweep.collect()
    assert await store.registry.blob_size(store.name, blob.digest) == 500
    assert (await store.registry.manifest(store.name, "again") or (None, None))[1] == manifest


async def test_a_pinned_manifest_stays_without_a_tag(store: Store) -> None:
    """A deployment that was told a digest can pull it, however long ago the tag was deleted."""
    manifest = await store.push("pinned", os.urandom(100))
    store.pins = {hexed(manifest.digest)}
    store.storage.delete_tag(store.name, "pinned", hexed(manifest.digest))
    await store.age()
    await store.age()
    await store.sweep.collect()
    assert (await store.registry.manifest(store.name, manifest.digest) or (None, None))[1] == manifest


async def test_a_layer_that_is_mounted_keeps_its_bytes(store: Store) -> None:
    """A range's containers stand on it, whatever became of the image; once it is let go, it is freed."""
    manifest = await store.push("mounted", os.urandom(100))
    (layer,) = (one.digest for one in manifest.body.layers)
    store.mounted = {hexed(layer)}
    store.storage.delete_tag(store.name, "mounted", hexed(manifest.digest))
    for _ in range(3):  # a manifest goes before what it names
        await store.age()
        await store.sweep.collect()
    assert store.there(layer)
    assert not store.there(manifest.body.config.digest)
    store.mounted = set()
    await store.age()
    await store.sweep.collect()
    assert not store.there(layer)


async def test_a_tag_that_moved_meanwhile_is_not_deleted(store: Store) -> None:
    """Delete means the content that was shown to the person, not what the tag names by now."""
    first = await store.push("moving", os.urandom(100))
    second = await store.push("moving", os.urandom(100))
    assert not store.storage.delete_tag(store.name, "moving", hexed(first.digest))
    assert (await store.registry.manifest(store.name, "moving") or (None, None))[1] == second


async def test_a_dry_run_changes_nothing_and_says_what_would_go(store: Store) -> None:
    """The bytes it tells are those that the collection sets aside."""
    blob = await store.put(os.urandom(1234))
    await store.age()
    _, _, planned = await store.sweep.plan()
    assert store.there(blob.digest)
    result = await store.sweep.collect()
    assert (planned.candidates, planned.candidate_bytes) == (result.candidates, result.candidate_bytes)
    assert planned.candidate_bytes >= 1234


async def test_a_changed_manifest_keeps_its_repository_and_is_reported(store: Store) -> None:
    """One flipped byte in a manifest deletes nothing, however valid the JSON still is."""
    loose = os.urandom(100)
    manifest = await store.push("damaged", os.urandom(100))
    await store.put(loose)
    data = store.storage.folder(hexed(manifest.digest)) / "data"
    data.write_bytes(data.read_bytes().replace(b'"size":100', b'"size":101'))
    await store.age()
    result = await store.sweep.collect()
    assert f"{store.name}@{manifest.digest}" in result.damaged
    assert store.there(sha256(loose))
    data.write_bytes(manifest.content)


async def test_figures_are_those_of_the_files(store: Store) -> None:
    """Unique, shared and logical bytes of a repository, from the mark and the files' own sizes."""
    shared, own = os.urandom(2000), os.urandom(3000)
    one, two = await store.push("1", shared), await store.push("2", shared, own)
    mark = await store.sweep.mark()
    sizes = {blob.digest: blob.size_bytes or 0 for blob in store.storage.blobs()}
    rows, _, _ = repository_figures(mark, store.storage.manifest, sizes)
    (row,) = [row for row in rows if row.repository == store.name]
    described = sum(len(image.content) + image.body.config.size for image in (one, two))
    assert (row.tags, row.logical_bytes, row.unique_bytes) == (2, 7000 + described, 5000 + described)


async def test_the_signature_of_an_image_stays_with_it(store: Store, tmp_path: Path) -> None:
    """It hangs on a tag of its own, so a collection keeps it, and the check still finds it in a real registry."""
    signer, other = Signer(tmp_path), Signer(tmp_path / "..", f"other-{tmp_path.name}")
    manifest = await store.push("signed", b"layer" * 500)
    unsigned = await store.push("unsigned", b"other" * 500)
    await signer.sign(store.registry, store.name, manifest.digest)
    await store.age()
    await store.sweep.collect()
    check = ImageSignatures(store.registry, signer.public)
    assert await check.problem(store.name, manifest.digest) is None
    assert "there is no signature" in (await check.problem(store.name, unsigned.digest) or "")
    strangers = ImageSignatures(store.registry, other.public)
    assert "none of the signatures" in (await strangers.problem(store.name, manifest.digest) or "")
