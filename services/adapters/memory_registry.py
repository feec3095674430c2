"""Fake registry in memory, for tests and embedded runs. Passes `tests/contract/test_registry.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from services.core.images.manifests import Descriptor, Manifest, sha256
from services.errors import RegistryUnavailable, TransferFailed, WrongContent
from services.ports import BlobDigest, Chunks

_CHUNK_BYTES = 64 * 1024


@dataclass(slots=True)
class _Repository:
    blobs: set[str] = field(default_factory=set)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class MemoryRegistry:
    """The port `services.ports.Registry` without a registry.

    `away` makes every call fail as a stopped registry does. `uploaded` lists what came in by upload, in order, as
    (repository, digest, bytes): the promise that nothing is sent twice is read from it. `foreign` is what other
    programs left under (repository, tag): an index, or something that is no manifest at all.
    """

    def __init__(self, address: str = "registry:5000") -> None:
        self._address = address
        self.away = False
        self.uploaded: list[tuple[str, str, int]] = []
        self.foreign: dict[tuple[str, str], bytes] = {}
        self._content: dict[str, bytes] = {}
        self._repositories: dict[str, _Repository] = {}

    @property
    def address(self) -> str:
        return self._address

    @property
    def blobs(self) -> Mapping[str, bytes]:
        """Every blob by its digest, as the storage has it: also while the registry is away."""
        return self._content

    def lose(self, digest: str) -> None:
        """Lose a blob as a broken disk does: no repository has it any more, and every manifest stays."""
        del self._content[digest]
        for repository in self._repositories.values():
            repository.blobs.discard(digest)

    def cut(self, digest: str) -> None:
        """Keep half of a blob, as a broken disk does: it is served, and an upload of the right bytes is not needed."""
        self._content[digest] = self._content[digest][: len(self._content[digest]) // 2]

    async def ping(self) -> None:
        if self.away:
            raise RegistryUnavailable(f"the registry {self._address} does not answer: check that it runs")

    async def blob_size(self, repository: str, digest: str) -> int | None:
        await self.ping()
        return len(self._content[digest]) if digest in self._at(repository).blobs else None

    async def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        await self.ping()
        if digest not in self._at(source).blobs:
            return False
        self._made(repository).blobs.add(digest)
        return True

    async def put_blob(self, repository: str, digest: BlobDigest, size_bytes: int | None, chunks: Chunks) -> None:
        await self.ping()
        content = bytearray()
        async for chunk in chunks:
            content += chunk
            await self.ping()
        digest = digest if isinstance(digest, str) else digest()
        if size_bytes is not None and size_bytes != len(content):
            raise WrongContent(f"the blob {digest} was to have {size_bytes} bytes, its source gave {len(content)}")
        if sha256(bytes(content)) != digest:
            raise WrongContent(f"what was uploaded to {repository} is not {digest}")
        self._content.setdefault(digest, bytes(content))
        self._made(repository).blobs.add(digest)
        self.uploaded.append((repository, digest, len(content)))

    @asynccontextmanager
    async def open_blob(self, repository: str, digest: str) -> AsyncIterator[Chunks]:
        await self.ping()
        if digest not in self._at(repository).blobs:
            raise TransferFailed(f"the registry has no blob {digest} in {repository} any more")
        yield self._chunks(digest, self._content[digest])

    async def _chunks(self, digest: str, content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), _CHUNK_BYTES):
            await self.ping()
            yield content[start : start + _CHUNK_BYTES]
        if sha256(content) != digest:
            raise WrongContent(f"the registry's blob {digest} has other content ({len(content)} bytes came)")

    async def manifest(self, repository: str, reference: str) -> tuple[Descriptor, Manifest] | None:
        await self.ping()
        if (repository, reference) in self.foreign:
            left = Manifest.parse(self.foreign[repository, reference])
            return left.descriptor, left
        place = self._at(repository)
        manifest = place.manifests.get(place.tags.get(reference, reference))
        return None if manifest is None else (manifest.descriptor, manifest)

    async def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> Descriptor:
        await self.ping()
        if ":" in reference and reference != manifest.digest:
            raise WrongContent(f"the manifest for {repository}@{reference} has digest {manifest.digest}")
        place = self._at(repository)
        for blob in (manifest.body.config, *manifest.body.layers):
            if blob.digest not in place.blobs and not blob.urls:
                raise TransferFailed(f"the manifest names the blob {blob.digest}, which {repository} does not have")
        place = self._made(repository)
        place.manifests[manifest.digest] = manifest
        if ":" not in reference:
            place.tags[reference] = manifest.digest
        return manifest.descriptor

    async def delete_manifest(self, repository: str, digest: str) -> bool:
        await self.ping()
        place = self._at(repository)
        place.tags = {tag: named for tag, named in place.tags.items() if named != digest}
        return place.manifests.pop(digest, None) is not None

    async def repositories(self) -> AsyncIterator[str]:
        await self.ping()
        for repository in sorted({*self._repositories, *(repository for repository, _ in self.foreign)}):
            yield repository

    async def tags(self, repository: str) -> list[str]:
        await self.ping()
        left = (tag for place, tag in self.foreign if place == repository)
        return sorted({*self._at(repository).tags, *left})

    def _at(self, repository: str) -> _Repository:
        """For reading: a repository that is not there is empty."""
        return self._repositories.get(repository) or _Repository()

    def _made(self, repository: str) -> _Repository:
        return self._repositories.setdefault(repository, _Repository())
