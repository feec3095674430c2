"""Prefetch of layer images: index and tar-split are made when an image was pushed, before a range wants its layers.

It is a convenience. Pushes are followed outside any consumer group, so that the layer-mounter of each host hears of
every one; what it misses, or cannot make, is made on demand. Layers are taken one at a time, by programs of a low
priority, and the stream of events is the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from events.bus import BusClient, BusError
from events.messages import ImagePushed
from services.core.mounts.layer_mounts import unmountable
from services.errors import LayersNotMounted
from services.ports import LayerMounts
from services.runtime.telemetry import get_logger

_PAUSE_SECONDS = 2.0


class Preparation:
    """Follows `stream` (image events) once `able` says that layers can be mounted here."""

    def __init__(
        self, *, bus: BusClient, mounts: LayerMounts, stream: str, able: Callable[[], Awaitable[object]]
    ) -> None:
        self._bus = bus
        self._mounts = mounts
        self._stream = stream
        self._able = able
        self._log = get_logger(role="layer-mounter")

    async def run(self) -> None:
        """Until cancelled. Redis may be unavailable meanwhile: then it goes on after the last entry it read."""
        place = "$"
        await self._able()
        while True:
            try:
                async with aclosing(self._bus.tail((self._stream,), after=place)) as entries:
                    async for entry in entries:
                        place = entry.entry_id
                        if entry.envelope is not None and isinstance(entry.envelope.message, ImagePushed):
                            await self._prepare(entry.envelope.message)
            except BusError:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _prepare(self, pushed: ImagePushed) -> None:
        why = unmountable(pushed.layers)
        if why is None:
            for layer in dict.fromkeys(pushed.layers):
                try:
                    await self._mounts.prepare(layer)
                except LayersNotMounted as problem:
                    why = str(problem)
        if why is not None:
            self._log.info("not prepared for mounting", image=pushed.reference, why=why)
