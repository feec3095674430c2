"""Mounted layers of one transfer: accepted, placed in the engine's store, and settled when the transfer is over.

Whatever goes wrong here only makes the transfer a slower one: the ordinary pull follows in any case, and the reason is
said with the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from events.messages import Failure, LoadOffered, PullRequested
from events.range_messages import LAYERS
from services.errors import LayersNotMounted
from services.ports import LayerPlacer

#: The pull is as good as ever by then; placing 120 layers takes less than a second.
PLACE_SECONDS = 60.0
SETTLE_SECONDS = 20.0


async def unreadable(placer: LayerPlacer | None) -> tuple[str, ...]:
    """Mounted layers of the engine that cannot be read, as far as a message has room."""
    if placer is not None:
        with suppress(OSError):  # of a store that cannot be looked into, nothing is known
            return (await placer.unreadable())[:LAYERS]
    return ()


class Placement:
    """The result of placing the layers of one transfer. `why_not` is None as long as nothing failed."""

    def __init__(self, placer: LayerPlacer | None, request: PullRequested | LoadOffered) -> None:
        self.placed = False
        self.why_not: Failure | None = None
        self._placer = placer
        self._request = request

    async def place(self) -> None:
        """Place the layers in the engine's store, if the host shows them for this request."""
        request, placer = self._request, self._placer
        if placer is None or not isinstance(request, PullRequested) or not request.mounted or self.why_not is not None:
            return
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                await placer.place(request.transfer_id, request.layers, request.source or "")
        except LayersNotMounted as problem:
            self.why_not = problem.failure()
        except TimeoutError:
            self.failed(f"the engine did not take the layers within {PLACE_SECONDS:.0f} s")
        else:
            self.placed = True

    def failed(self, why: str) -> None:
        """Note why the mounted layers are not used."""
        self.placed = False
        self.why_not = LayersNotMounted(why).failure()


@asynccontextmanager
async def placement(placer: LayerPlacer | None, request: PullRequested | LoadOffered) -> AsyncIterator[Placement]:
    """The placement of one transfer; at the end nothing of it is left that no image uses."""
    layers = Placement(placer, request)
    shown = placer is not None and isinstance(request, PullRequested) and request.mounted
    if not shown or placer is None or not isinstance(request, PullRequested):
        yield layers
        return
    try:
        await placer.accept(request.transfer_id, request.layers)
    except (LayersNotMounted, OSError) as problem:
        layers.failed(f"the folders cannot be noted: {problem}")
    try:
        yield layers
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await placer.settle(request.transfer_id)
