"""Listed layers: the images of a range's engine and their layers, from as few listings as will do.

A containerd store reads every image's manifest and config for a listing: measured on 28.5, some milliseconds for each
image, fifty times what a classic store takes. One listing for each transfer made the time of a deployment grow with
the square of its images. So a listing is used again for ten times as long as it took, together with what this agent
brought since. Where somebody else removed images meanwhile, an archive lacks layers, and is asked for whole then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from services.core.images.image import EngineImage
from services.ports import Engine

#: A listing that took a second is used for so many seconds: a tenth of the time at most goes into listings.
_USED_TIMES = 10


class ListedLayers:
    """Of one engine. `clock` gives monotonic seconds."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._images: list[EngineImage] = []
        self._brought: list[EngineImage] = []
        self._used_until = float("-inf")
        self._listing = asyncio.Lock()

    async def images(self) -> list[EngineImage]:
        """The images of the last listing, or of a new one where that is too old."""
        async with self._listing:
            started = self._clock()
            if started >= self._used_until:
                brought = len(self._brought)
                self._images = await self._engine.images()
                del self._brought[:brought]  # what came while it was listed may not be in it
                now = self._clock()
                self._used_until = now + _USED_TIMES * (now - started)
            return list(self._images)

    async def known(self) -> list[EngineImage]:
        """The images of `images`, and those that were brought since, of which nothing but the layers is known."""
        return [*await self.images(), *self._brought]

    def note(self, diff_ids: tuple[str, ...], raw_layers: tuple[str, ...] = ()) -> None:
        """A transfer brought an image with these layers, and those of them uncompressed."""
        self._brought.append(EngineImage(local_id="", image_id=None, diff_ids=diff_ids, raw_layers=raw_layers))

    def forget(self) -> None:
        """What was listed turned out to be wrong."""
        self._used_until = float("-inf")
