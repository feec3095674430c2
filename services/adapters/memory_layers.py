"""Layer source of the fake engine: random access, as a layer store on the disk gives it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.adapters.memory_engine import MemoryEngine
from services.core.images.image import EngineImage
from services.errors import LayerUnreadable
from services.ports import Chunks

_CHUNK_BYTES = 1 << 16


class MemoryLayers:
    """The port `services.ports.LayerSource` on a `MemoryEngine`."""

    name = "layers"

    def __init__(self, engine: MemoryEngine) -> None:
        self._store = engine.store

    async def config(self, image: EngineImage) -> bytes:
        if image.local_id not in self._store.images:
            raise LayerUnreadable(f"the store has no image {image.local_id} any more")
        return self._store.images[image.local_id].config

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        return len(self._content(diff_id))

    @asynccontextmanager
    async def layer(self, image: EngineImage, diff_id: str) -> AsyncIterator[Chunks]:
        yield self._chunks(self._content(diff_id))

    async def _chunks(self, content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), _CHUNK_BYTES):
            yield content[start : start + _CHUNK_BYTES]

    def _content(self, diff_id: str) -> bytes:
        if diff_id not in self._store.layers:
            raise LayerUnreadable(f"the store has no layer {diff_id} any more")
        return self._store.layers[diff_id]
