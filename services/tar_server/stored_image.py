"""Image as the registry stores it: which layers it has plain, which compressed, and how each is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass

from services.content.decompression import unpacked
from services.core.images.manifests import Descriptor
from services.errors import CyroidError
from services.ports import Chunks, Registry


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in one repository of the registry. `packed` are the blobs of compressed layers, by diff ID."""

    registry: Registry
    repository: str
    config: bytes
    packed: Mapping[str, Descriptor]

    async def size(self, diff_id: str, patience_seconds: float) -> int | None:
        """The size in bytes of a layer that is stored uncompressed."""
        try:
            async with asyncio.timeout(patience_seconds):
                return await self.registry.blob_size(self.repository, diff_id)
        except (CyroidError, TimeoutError):
            return None

    def layer(self, diff_id: str) -> AbstractAsyncContextManager[Chunks]:
        return self.registry.open_blob(self.repository, diff_id)

    @asynccontextmanager
    async def unpacked_layer(self, diff_id: str) -> AsyncIterator[Chunks]:
        digest = self.packed[diff_id].digest
        what = f"the blob {digest} in {self.repository}"
        async with (
            self.registry.open_blob(self.repository, digest) as chunks,
            aclosing(unpacked(chunks, what)) as plain,
        ):
            yield plain
