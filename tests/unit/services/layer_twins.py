"""Layer sources for tests: they read the fake engine, and fail where a test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from events.memory.bus import MemoryBus
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.images.image import EngineImage
from services.core.images.manifests import sha256
from services.errors import LayerUnreadable
from services.ports import Chunks, OpenLayer
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.layer_push import LayerPush

CHUNK_BYTES = 1000
#: What `docker buildx` leaves under a tag.
INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'


class TwinSource:
    """Random access, as a layer store. `broken` maps a diff ID to what is given instead (None: an error)."""

    def __init__(self, engine: MemoryEngine, name: str = "layers") -> None:
        self.name = name
        self.broken: dict[str, bytes | None] = {}
        self.opened: list[str] = []
        self._engine = engine

    async def config(self, image: EngineImage) -> bytes:
        self._check(image)
        return self._engine.store.images[image.local_id].config

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        return len(self._content(image, diff_id))

    @asynccontextmanager
    async def layer(self, image: EngineImage, diff_id: str) -> AsyncIterator[Chunks]:
        self.opened.append(diff_id)
        content = self._content(image, diff_id)
        if self.broken.get(diff_id) is not None:
            content = self.broken[diff_id] or b""
        yield self._chunks(diff_id, content)

    async def _chunks(self, diff_id: str, content: bytes) -> AsyncIterator[bytes]:
        step = max(CHUNK_BYTES, len(content) // 20)
        for start in range(0, len(content), step):
            yield content[start : start + step]
            if diff_id in self.broken and self.broken[diff_id] is None:
                raise LayerUnreadable(f"{diff_id} broke off")

    def _content(self, image: EngineImage, diff_id: str) -> bytes:
        self._check(image)
        if diff_id not in self._engine.store.layers:
            raise LayerUnreadable(f"{diff_id} is not there")
        return self._engine.store.layers[diff_id]

    def _check(self, image: EngineImage) -> None:
        if image.local_id not in self._engine.store.images:
            raise LayerUnreadable(f"{image.local_id} is not there")


class TwinStream(TwinSource):
    """One stream, as a split save: layers in the order of their digests, in one pass."""

    def __init__(self, engine: MemoryEngine) -> None:
        super().__init__(engine, "save")
        self.passes = 0

    @asynccontextmanager
    async def layers(self, image: EngineImage, diff_ids: Sequence[str]) -> AsyncIterator[AsyncIterator[OpenLayer]]:
        self.passes += 1
        yield self._in_order(image, sorted(diff_ids))

    async def _in_order(self, image: EngineImage, diff_ids: Sequence[str]) -> AsyncIterator[OpenLayer]:
        for diff_id in diff_ids:
            async with self.layer(image, diff_id) as chunks:
                yield OpenLayer(diff_id, len(self._content(image, diff_id)), chunks)


def layer(seed: str, size: int = 3000) -> bytes:
    """Bytes of a layer that differ by `seed`."""
    return (sha256(seed.encode()).encode() * (size // 71 + 1))[:size]


def twin_push(engine: MemoryEngine, registry: MemoryRegistry, bus: MemoryBus | None = None) -> ImagePush:
    """A push from one fake to the other, out of a source that reads everything."""
    sources = (TwinSource(engine),)
    encodings = LayerEncodings(bus=bus or MemoryBus(), prefix="t")
    return ImagePush(
        engine=engine,
        registry=registry,
        sources=sources,
        layers=LayerPush(registry=registry, sources=sources, encodings=encodings),
        engine_registry=registry.address,
    )
