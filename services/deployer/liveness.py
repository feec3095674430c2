"""Liveness of pushes and transfers: when progress was last reported, and when it last advanced.

Progress is lossy and kept in memory only. A replica that has just started knows nothing, so it counts from its own
start: everything gets one more period before it is called silent.

**A range's progress is hostile.** It is kept apart by range, so that no range affects another's transfer or a push.
Progress that only repeats itself is a sign of life, but no advance: that takes a later phase, more
bytes or more layers than ever before. A pull that its engine keeps waiting behind others advances with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from events.bus import BusClient, BusError
from events.messages import TransferProgress

Key = TypeVar("Key")
Value = TypeVar("Value")
_REMEMBERED = 20_000
_PAUSE_SECONDS = 1.0
_PHASES = ("waiting", "checking", "reading", "sending", "downloading", "extracting", "done", "failed")


@dataclass(frozen=True, slots=True)
class TransferLiveness:
    """Liveness of one transfer: when it last reported progress, and when it last advanced."""

    heard_at: datetime
    advanced_at: datetime


@dataclass(slots=True)
class _LastProgress:
    """The latest progress of one transfer; `stage` and the counts are the furthest ever."""

    heard_at: datetime
    advanced_at: datetime
    stage: tuple[bool, int] = (False, -1)
    done_bytes: int = 0
    layers_done: int = 0
    waits: bool = False

    def hear(self, progress: TransferProgress, now: datetime) -> bool:
        """Take new progress. Returns whether it advanced.

        A load comes after a pull; in a later phase the bytes count from the beginning.
        """
        self.heard_at = now
        self.waits = progress.phase == "waiting"
        stage = (progress.kind == "load", _PHASES.index(progress.phase))
        later = stage > self.stage
        if not later and (stage < self.stage or not self._is_more(progress)):
            return False
        self.stage, self.advanced_at = stage, now
        self.done_bytes = progress.done_bytes if later else max(self.done_bytes, progress.done_bytes)
        self.layers_done = max(self.layers_done, progress.layers_done)
        return True

    def _is_more(self, progress: TransferProgress) -> bool:
        return progress.done_bytes > self.done_bytes or progress.layers_done > self.layers_done


class Liveness:
    """Follows the progress stream and remembers the times."""

    def __init__(self, *, bus: BusClient, stream: str, clock: Callable[[], datetime]) -> None:
        self._bus = bus
        self._stream = stream
        self._clock = clock
        self._pushes: dict[str, datetime] = {}
        self._transfers: dict[tuple[str, str], _LastProgress] = {}
        self._ranges: dict[str, datetime] = {}
        self._started = clock()
        self.any_push: datetime | None = None

    def push(self, reference: str) -> datetime | None:
        """When a push of that image last reported progress."""
        return self._pushes.get(reference)

    def transfer(self, range_id: str, transfer_id: str) -> TransferLiveness:
        """The liveness of a transfer, counted at the earliest from this replica's own start."""
        heard = self._transfers.get((range_id, transfer_id))
        if heard is None:
            return TransferLiveness(self._started, self._started)
        others = self._ranges.get(range_id) if heard.waits else None
        return TransferLiveness(heard.heard_at, max(heard.advanced_at, others or self._started))

    def hear(self, progress: TransferProgress) -> None:
        now = self._clock()
        if progress.kind == "push":
            self.any_push = now
            _keep(self._pushes, progress.reference, now)
        elif progress.range_id is not None:
            key = (progress.range_id, progress.transfer_id)
            heard = self._transfers.get(key) or _LastProgress(now, now)
            if heard.hear(progress, now) and not heard.waits:
                _keep(self._ranges, progress.range_id, now)
            _keep(self._transfers, key, heard)

    async def follow(self) -> None:
        """Follow until cancelled; progress is missed while Redis is unavailable."""
        while True:
            try:
                async for entry in self._bus.tail([self._stream]):
                    if entry.envelope is not None and isinstance(entry.envelope.message, TransferProgress):
                        self.hear(entry.envelope.message)
            except BusError:
                await asyncio.sleep(_PAUSE_SECONDS)


def _keep(kept: dict[Key, Value], key: Key, value: Value) -> None:
    """Keep a value as the latest; the oldest is removed where there are too many."""
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > _REMEMBERED:
        del kept[next(iter(kept))]
