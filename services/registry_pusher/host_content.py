"""Image ids of the host's engine where the engine does not report them: a containerd store names manifests only.

The config digest then comes out of the layer sources, as the announcement of the image takes it. That is a look into a
folder where the engine's data root is mounted; else a `docker save` is read up to the config, so it is done once for
each content, a few at a time, and not for ever.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from weakref import WeakValueDictionary

from services.content.host_config import host_config
from services.core.images.image import EngineImage
from services.core.images.manifests import sha256
from services.errors import CyroidError
from services.ports import LayerSource
from services.runtime.telemetry import get_logger

_AT_ONCE = 2
log = get_logger(role="registry-pusher")


class HostContent:
    """Image ids by what the engine calls the image, which names its content for ever.

    timeout_seconds  for one reading
    rest_seconds     before a config that could not be read is asked for again
    """

    def __init__(
        self,
        sources: Sequence[LayerSource],
        *,
        timeout_seconds: float = 120.0,
        rest_seconds: float = 60.0,
        remembered: int = 1000,
    ) -> None:
        self._sources = sources
        self._timeout = timeout_seconds
        self._rest = rest_seconds
        self._remembered = remembered
        self._known: OrderedDict[str, str] = OrderedDict()
        self._in_vain: dict[str, float] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def image_id(self, image: EngineImage) -> str | None:
        """The config digest; None where it cannot be read now."""
        if image.image_id is not None:
            return image.image_id
        async with self._turns.setdefault(image.local_id, asyncio.Lock()):
            known = self._known.get(image.local_id)
            if known is not None or self._rests(image.local_id):
                return known
            async with self._slots:
                found = await self._read(image)
            if found is None:
                self._in_vain[image.local_id] = asyncio.get_running_loop().time() + self._rest
            else:
                self._known[image.local_id] = found
                while len(self._known) > self._remembered:
                    self._known.popitem(last=False)
            return found

    def _rests(self, local_id: str) -> bool:
        now = asyncio.get_running_loop().time()
        self._in_vain = {known: until for known, until in self._in_vain.items() if until > now}
        return local_id in self._in_vain

    async def _read(self, image: EngineImage) -> str | None:
        try:
            return sha256(await host_config(self._sources, image, timeout_seconds=self._timeout))
        except CyroidError as problem:
            log.info("the image id is not known", image=image.local_id, why=str(problem))
        return None
