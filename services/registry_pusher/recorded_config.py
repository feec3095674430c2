"""Layer source: the config of a recorded image, as long as the registry still has it, and no layer.

Where only a layer was damaged, the archive that brings it need not be read for the config first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.core.images.image import EngineImage
from services.core.images.manifests import CONFIG_LIMIT_BYTES, sha256
from services.errors import LayerUnreadable, TransferFailed
from services.ports import Chunks, Registry


class RecordedConfig:
    """The `LayerSource` port for one image, known by its config's digest."""

    def __init__(self, registry: Registry, repository: str, image_id: str) -> None:
        self._registry = registry
        self._repository = repository
        self._image_id = image_id

    @property
    def name(self) -> str:
        return "registry"

    async def config(self, image: EngineImage) -> bytes:
        content = bytearray()
        try:
            async with self._registry.open_blob(self._repository, self._image_id) as chunks:
                async for chunk in chunks:
                    content += chunk
                    if len(content) > CONFIG_LIMIT_BYTES:
                        break
        except TransferFailed as problem:
            raise LayerUnreadable(str(problem)) from problem
        if sha256(bytes(content)) != self._image_id:
            raise LayerUnreadable(f"the registry's config {self._image_id} has other content")
        return bytes(content)

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        return None

    @asynccontextmanager
    async def layer(self, image: EngineImage, diff_id: str) -> AsyncIterator[Chunks]:
        raise LayerUnreadable(f"the layer {diff_id} is not read from the registry")
        yield  # makes this a generator, as the port wants it
