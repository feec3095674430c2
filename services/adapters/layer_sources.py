"""Layer sources of a host engine: the ways to read its layers, best first.

    1. its folders, where they are mounted: the layer store (classic), the content store (containerd)
    2. `docker save`, which every engine has

`docker push` comes after these and is the pusher's own. A source that cannot give a layer raises LayerUnreadable, and
whoever reads goes on with the next, with one log line and one count that say why.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from events.messages import Layer
from services.adapters.content_store import ContentStore
from services.adapters.layer_store import LayerStore
from services.adapters.save_stream import SaveStream
from services.core.images.image import EngineImage
from services.ports import Chunks, Engine, LayerSource


def layer_sources(engine: Engine, *, engine_root: Path | None, scratch: Path | None = None) -> list[LayerSource]:
    """All layer sources of this engine, best first.

    `engine_root` is where its data root can be read, None where it cannot.
    """
    saved = SaveStream(engine, scratch)
    return [saved] if engine_root is None else [Folders(engine_root), saved]


class Folders:
    """The engine's folders, whichever store it has: an image on a containerd store does not tell its config digest."""

    def __init__(self, root: Path) -> None:
        self._layers = LayerStore(root)
        self._contents = ContentStore(root)
        self._of: LayerStore | ContentStore = self._layers

    @property
    def name(self) -> str:
        """Of the store that was read last; one engine has one store."""
        return self._of.name

    async def config(self, image: EngineImage) -> bytes:
        return await self._for(image).config(image)

    async def size(self, image: EngineImage, diff_id: str) -> int | None:
        return await self._for(image).size(image, diff_id)

    def layer(self, image: EngineImage, diff_id: str) -> AbstractAsyncContextManager[Chunks]:
        return self._for(image).layer(image, diff_id)

    async def blob(self, image: EngineImage, diff_id: str) -> Layer | None:
        return await self._contents.blob(image, diff_id) if image.image_id is None else None

    def stored(self, layer: Layer) -> AbstractAsyncContextManager[Chunks]:
        return self._contents.stored(layer)

    def _for(self, image: EngineImage) -> LayerStore | ContentStore:
        self._of = self._contents if image.image_id is None else self._layers
        return self._of
