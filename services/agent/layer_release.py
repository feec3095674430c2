"""Release of mounted layers that the engine no longer uses: after each transfer, and periodically."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from events.bus import BusError
from events.messages import LayersReleased
from services.ports import LayerPlacer
from services.runtime.telemetry import get_logger

#: In one message, which a range's gateway takes only up to some kilobytes.
_AT_ONCE = 25


class LayerRelease:
    """Publishes releases with `publish`, to the range's outbox.

    A grant is forgotten only after its release was published.
    """

    def __init__(
        self,
        placer: LayerPlacer,
        *,
        range_id: str,
        look_seconds: float,
        publish: Callable[[LayersReleased], Awaitable[None]],
    ) -> None:
        self._placer = placer
        self._range_id = range_id
        self._look_seconds = look_seconds
        self._publish = publish
        self._hint = asyncio.Event()
        self._log = get_logger(role="agent", range=range_id)

    def hint(self) -> None:
        """Check soon, because a transfer has ended."""
        self._hint.set()

    async def run(self) -> None:
        """Check for unused folders until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds):
                    await self._hint.wait()
            self._hint.clear()
            try:
                while grants := await self._placer.unused():  # one grant of each folder at a time
                    await self._give_back(grants)
            except (OSError, BusError) as problem:
                self._log.info("could not give layers back", why=str(problem))

    async def _give_back(self, grants: Mapping[str, str]) -> None:
        names = list(grants)
        for start in range(0, len(names), _AT_ONCE):
            part = {name: grants[name] for name in names[start : start + _AT_ONCE]}
            await self._publish(LayersReleased(range_id=self._range_id, grants=part))
            await self._placer.forget(part)
            self._log.info("layers given back", layers=len(part))
