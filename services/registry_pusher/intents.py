"""Registry wrapper for pushes: announces every digest as an intent before it asks the registry for it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from events.bus import BusClient
from services.core.images.manifests import Descriptor, Manifest
from services.core.store.intents import INTENT_SECONDS, announced
from services.ports import BlobDigest, Chunks, Registry


class AnnouncingRegistry(Registry):
    """A registry whose blobs are announced (`services.core.store.intents`) before each first use.

    An announcement that is younger than half its time is not repeated. Raises BusError where Redis is unavailable: a
    push that cannot announce what it relies on does not rely on it.
    """

    def __init__(
        self, registry: Registry, *, bus: BusClient, prefix: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._registry = registry
        self._bus = bus
        self._prefix = prefix
        self._clock = clock
        self._announced: dict[str, float] = {}

    async def _announce(self, *digests: str) -> None:
        now = self._clock()
        due = [digest for digest in digests if now - self._announced.get(digest, float("-inf")) > INTENT_SECONDS / 2]
        if not due:
            return
        await self._bus.commit(announced(self._prefix, due, now))
        self._announced = {
            digest: moment for digest, moment in self._announced.items() if now - moment < INTENT_SECONDS
        }
        self._announced.update(dict.fromkeys(due, now))

    @property
    def address(self) -> str:
        return self._registry.address

    async def ping(self) -> None:
        await self._registry.ping()

    async def blob_size(self, repository: str, digest: str) -> int | None:
        await self._announce(digest)
        return await self._registry.blob_size(repository, digest)

    async def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        await self._announce(digest)
        return await self._registry.mount_blob(repository, digest, source)

    async def put_blob(self, repository: str, digest: BlobDigest, size_bytes: int | None, chunks: Chunks) -> None:
        if isinstance(digest, str):
            await self._announce(digest)
        await self._registry.put_blob(repository, digest, size_bytes, chunks)

    def open_blob(self, repository: str, digest: str) -> AbstractAsyncContextManager[Chunks]:
        return self._registry.open_blob(repository, digest)

    async def manifest(self, repository: str, reference: str) -> tuple[Descriptor, Manifest] | None:
        return await self._registry.manifest(repository, reference)

    async def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> Descriptor:
        body = manifest.body
        await self._announce(manifest.digest, body.config.digest, *(layer.digest for layer in body.layers))
        return await self._registry.put_manifest(repository, reference, manifest)

    async def delete_manifest(self, repository: str, digest: str) -> bool:
        return await self._registry.delete_manifest(repository, digest)

    def repositories(self) -> AsyncIterator[str]:
        return self._registry.repositories()

    async def tags(self, repository: str) -> list[str]:
        return await self._registry.tags(repository)
