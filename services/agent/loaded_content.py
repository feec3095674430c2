"""Loaded content in a containerd store, remembered by the agent: an image's id does not tell its config there.

Without it the same content under another name would be loaded again for each name, while the registry is unavailable.
"""

from __future__ import annotations

from collections import OrderedDict

from services.agent.inspection import Wanted
from services.core.images.image import EngineImage
from services.ports import Engine

_REMEMBERED = 1000


class LoadedContent:
    """Remembers, for as long as the agent runs, under which id its engine has a content that it loaded."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._local_ids: OrderedDict[str, str] = OrderedDict()

    async def note(self, wanted: Wanted) -> None:
        """Remember that `wanted` was loaded and verified now, and has its name."""
        image = await self._engine.inspect(wanted.reference)
        if image is not None and image.image_id is None and image.diff_ids == wanted.diff_ids:
            self._local_ids[wanted.image_id] = image.local_id
            self._local_ids.move_to_end(wanted.image_id)
            while len(self._local_ids) > _REMEMBERED:
                self._local_ids.popitem(last=False)

    async def find(self, wanted: Wanted) -> EngineImage | None:
        """That content, if the engine still has it."""
        local_id = self._local_ids.get(wanted.image_id)
        image = await self._engine.inspect(local_id) if local_id is not None else None
        if image is None or image.local_id != local_id or not wanted.is_after_transfer(image):
            self._local_ids.pop(wanted.image_id, None)
            return None
        return image
