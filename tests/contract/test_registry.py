"""Conformance of the `Registry` port, on the fake in memory and a real `registry:2`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.adapters.memory_registry import MemoryRegistry
from services.adapters.registry import HttpRegistry
from services.core.images.manifests import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    sha256,
)
from services.errors import TransferFailed, WrongContent
from services.ports import Registry
from tests.laboratory import RegistryServer

MEGABYTE = 1024 * 1024
NOWHERE = "sha256:" + "0" * 64


@asynccontextmanager
async def _memory(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    yield MemoryRegistry()


@asynccontextmanager
async def _real(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    server: RegistryServer = request.getfixturevalue("registry_server")
    async with HttpRegistry.open(server.url, address="registry.test:5000") as registry:
        yield registry


@asynccontextmanager
async def _written(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    """Large blobs go into the storage folder of the same registry."""
    server: RegistryServer = request.getfixturevalue("registry_server")
    async with HttpRegistry.open(server.url, address="registry.test:5000", storage=server.storage) as registry:
        yield registry


@pytest.fixture(
    params=[
        pytest.param(_memory, id="memory"),
        pytest.param(_real, id="real", marks=pytest.mark.real),
        pytest.param(_written, id="written", marks=pytest.mark.real),
    ]
)
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    """One adapter after the other."""
    async with request.param(request) as made:
        yield made


async def pieces(content: bytes, size: int = MEGABYTE) -> AsyncIterator[bytes]:
    """`content` in chunks."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def put(registry: Registry, repository: str, content: bytes, size: int = MEGABYTE) -> str:
    digest = sha256(content)
    await registry.put_blob(repository, digest, len(content), pieces(content, size))
    return digest


async def whole(registry: Registry, repository: str, digest: str) -> bytes:
    async with registry.open_blob(repository, digest) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def image(registry: Registry, repository: str, *, docker: bool = False) -> Manifest:
    """A small image's blobs, and its manifest, which is not put."""
    config = b'{"architecture":"amd64","os":"linux","salt":"%s"}' % os.urandom(8).hex().encode()
    layer = os.urandom(1000)
    await put(registry, repository, config)
    await put(registry, repository, layer)
    return Manifest.write(
        Descriptor(media_type=DOCKER_CONFIG if docker else OCI_CONFIG, digest=sha256(config), size=len(config)),
        (Descriptor(media_type=DOCKER_LAYER if docker else OCI_LAYER, digest=sha256(layer), size=len(layer)),),
        DOCKER_MANIFEST if docker else OCI_MANIFEST,
    )


async def test_a_ping_is_answered(registry: Registry) -> None:
    """A registry that runs says so."""
    await registry.ping()


@pytest.mark.parametrize("size", [0, 1, MEGABYTE, MEGABYTE + 1, 5 * MEGABYTE])
async def test_a_blob_comes_back_as_it_went(registry: Registry, unique: str, size: int) -> None:
    """Empty, tiny, exactly one chunk and many chunks: the bytes come back, and the size is known."""
    content = os.urandom(size)
    digest = await put(registry, unique, content)
    assert await registry.blob_size(unique, digest) == size
    assert await whole(registry, unique, digest) == content


async def test_a_blob_of_unknown_size_is_taken(registry: Registry, unique: str) -> None:
    """A compressed layer's size is known only afterwards."""
    content = os.urandom(3 * MEGABYTE)
    await registry.put_blob(unique, sha256(content), None, pieces(content))
    assert await registry.blob_size(unique, sha256(content)) == len(content)


async def test_a_blob_is_seen_in_its_own_repository_only(registry: Registry, unique: str) -> None:
    """Existence is per repository, and what does not exist has no size."""
    digest = await put(registry, f"{unique}/a", b"layer of a")
    assert await registry.blob_size(f"{unique}/b", digest) is None
    assert await registry.blob_size(f"{unique}/a", NOWHERE) is None


async def test_a_blob_is_mounted_from_where_it_is(registry: Registry, unique: str) -> None:
    """A mount makes it visible; a hint that is wrong is answered with no, and leaves nothing behind."""
    digest = await put(registry, f"{unique}/a", os.urandom(100))
    assert not await registry.mount_blob(f"{unique}/b", digest, f"{unique}/c")
    assert await registry.blob_size(f"{unique}/b", digest) is None
    assert await registry.mount_blob(f"{unique}/b", digest, f"{unique}/a")
    assert await registry.blob_size(f"{unique}/b", digest) == 100


@pytest.mark.parametrize("size", [100, 3 * MEGABYTE])
async def test_wrong_bytes_are_refused(registry: Registry, unique: str, size: int) -> None:
    """Bytes that are not the digest's are refused, short or long, and nothing becomes visible."""
    digest = sha256(os.urandom(8))
    with pytest.raises(WrongContent):
        await registry.put_blob(unique, digest, size, pieces(os.urandom(size)))
    assert await registry.blob_size(unique, digest) is None


@pytest.mark.parametrize("size", [100, 3 * MEGABYTE])
async def test_a_source_that_ends_early_makes_no_blob(registry: Registry, unique: str, size: int) -> None:
    """Fewer or more bytes than were announced are wrong content, whatever their digest."""
    content = os.urandom(size)
    with pytest.raises(WrongContent, match=str(size)):
        await registry.put_blob(unique, sha256(content), size + 1, pieces(content))
    assert await registry.blob_size(unique, sha256(content)) is None


@pytest.mark.parametrize("before", [0, 1, 5])
async def test_a_source_that_fails_makes_no_blob(registry: Registry, unique: str, before: int) -> None:
    """The source's own error comes out, whenever it happens."""

    async def failing() -> AsyncIterator[bytes]:
        for _ in range(before):
            yield os.urandom(MEGABYTE)
        raise TransferFailed("the source broke")

    with pytest.raises(TransferFailed, match="the source broke"):
        await registry.put_blob(unique, NOWHERE, None, failing())
    assert await registry.blob_size(unique, NOWHERE) is None


@pytest.mark.parametrize("docker", [False, True])
async def test_a_manifest_is_found_by_tag_and_digest(registry: Registry, unique: str, docker: bool) -> None:
    """Byte for byte, in OCI's and in Docker's media types."""
    manifest = await image(registry, unique, docker=docker)
    assert await registry.manifest(unique, "latest") is None
    assert await registry.put_manifest(unique, manifest.digest, manifest) == manifest.descriptor
    assert await registry.manifest(unique, "latest") is None
    await registry.put_manifest(unique, "latest", manifest)
    for reference in ("latest", manifest.digest):
        assert await registry.manifest(unique, reference) == (manifest.descriptor, manifest)
    assert await registry.manifest(unique, NOWHERE) is None
    assert await registry.manifest(f"{unique}/other", "latest") is None


async def test_a_manifest_without_its_blobs_is_refused(registry: Registry, unique: str) -> None:
    """Half an image is never named."""
    manifest = await image(registry, f"{unique}/whole")
    with pytest.raises(TransferFailed):
        await registry.put_manifest(f"{unique}/half", "latest", manifest)
    assert await registry.manifest(f"{unique}/half", "latest") is None


async def test_a_tag_moves(registry: Registry, unique: str) -> None:
    """A tag names what was put last; the older manifest stays under its digest."""
    first, second = await image(registry, unique), await image(registry, unique)
    await registry.put_manifest(unique, "t", first)
    await registry.put_manifest(unique, "t", second)
    assert await registry.manifest(unique, "t") == (second.descriptor, second)
    assert await registry.manifest(unique, first.digest) == (first.descriptor, first)
    assert await registry.tags(unique) == ["t"]


async def test_deleting_a_manifest_drops_its_tags(registry: Registry, unique: str) -> None:
    """All of its tags go, others stay, and a second time there is nothing to delete."""
    gone, stays = await image(registry, unique), await image(registry, unique)
    for tag, manifest in (("a", gone), ("b", gone), ("c", stays)):
        await registry.put_manifest(unique, tag, manifest)
    assert await registry.delete_manifest(unique, gone.digest)
    assert not await registry.delete_manifest(unique, gone.digest)
    assert await registry.manifest(unique, "a") is None
    assert await registry.tags(unique) == ["c"]


async def test_repositories_and_tags_are_listed(registry: Registry, unique: str) -> None:
    """Every repository that holds something, and no tags where there is no repository."""
    manifest = await image(registry, f"{unique}/a")
    for tag in ("x", "y"):
        await registry.put_manifest(f"{unique}/a", tag, manifest)
    listed = [name async for name in registry.repositories() if name.startswith(unique)]
    assert listed == [f"{unique}/a"]
    assert sorted(await registry.tags(f"{unique}/a")) == ["x", "y"]
    assert await registry.tags(f"{unique}/none") == []


async def test_a_blob_that_is_gone_is_an_error_when_opened(registry: Registry, unique: str) -> None:
    """Opening what is not there says so before the first byte."""
    with pytest.raises(TransferFailed):
        async with registry.open_blob(unique, NOWHERE):
            pass


async def test_a_blob_half_read_can_be_left(registry: Registry, unique: str) -> None:
    """Leaving early is no error, and the next request works."""
    digest = await put(registry, unique, os.urandom(8 * MEGABYTE))
    async with registry.open_blob(unique, digest) as chunks:
        assert await anext(chunks)
    content = await whole(registry, unique, digest)
    assert "sha256:" + hashlib.sha256(content).hexdigest() == digest
