"""How far a push is: counted as chunks pass, taken back when an attempt failed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from services.ports import OpenLayer


@dataclass(slots=True)
class Tally:
    """How far a push is, in bytes of layers as they are read. `changed` is called after every step."""

    changed: Callable[[Tally], None] = lambda tally: None
    total_bytes: int = 0
    done_bytes: int = 0
    sent_bytes: int = 0
    reused_bytes: int = 0
    layers_done: int = 0
    layers_total: int = 0


class Counted:
    """Chunks that pass through, counted into a tally; `take_back` when the attempt they belonged to failed."""

    def __init__(self, tally: Tally, layer: OpenLayer) -> None:
        self.read_bytes = 0
        self._tally = tally
        self._layer = layer

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._layer.chunks:
            self._step(len(chunk))
            yield chunk

    def take_back(self) -> None:
        self._step(-self.read_bytes)

    def _step(self, step_bytes: int) -> None:
        self.read_bytes += step_bytes
        self._tally.done_bytes += step_bytes
        if self._layer.size_bytes is None:
            self._tally.total_bytes += step_bytes
        self._tally.changed(self._tally)
