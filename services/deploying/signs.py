"""Signs of life: when progress of a push or a transfer was last heard.

Progress is lossy and kept in memory only. A replica that has just started knows nothing, so it counts from its own
start: everything gets one more period before it is called silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from events.bus import BusError, Speaker
from events.messages import TransferProgress

_REMEMBERED = 20_000
_PAUSE_SECONDS = 1.0


class Signs:
    """Follows the progress stream and remembers the times."""

    def __init__(self, *, speaker: Speaker, stream: str, clock: Callable[[], datetime]) -> None:
        self._speaker = speaker
        self._stream = stream
        self._clock = clock
        self._heard: dict[str, datetime] = {}
        self._started = clock()
        self.any_push: datetime | None = None

    def push(self, reference: str) -> datetime | None:
        """Last progress of a push of that image."""
        return self._heard.get(f"push {reference}")

    def transfer(self, transfer_id: str) -> datetime:
        """Last progress of a transfer, at the earliest this replica's own start."""
        return self._heard.get(transfer_id, self._started)

    def hear(self, progress: TransferProgress) -> None:
        now = self._clock()
        if progress.kind == "push":
            self.any_push = now
        key = f"push {progress.reference}" if progress.kind == "push" else progress.transfer_id
        self._heard.pop(key, None)
        self._heard[key] = now
        while len(self._heard) > _REMEMBERED:
            del self._heard[next(iter(self._heard))]

    async def follow(self) -> None:
        """For ever; what is missed while Redis is away is missed."""
        while True:
            try:
                async for entry in self._speaker.tail([self._stream]):
                    if entry.envelope is not None and isinstance(entry.envelope.message, TransferProgress):
                        self.hear(entry.envelope.message)
            except BusError:
                await asyncio.sleep(_PAUSE_SECONDS)
