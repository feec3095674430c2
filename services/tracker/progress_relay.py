"""Progress relay: copies every range's progress to the shared stream.

**A range is hostile.** Its progress is copied under its own id, for pulls and loads of transfers alone, so that it
cannot report on another range's, or on a push; its notes are cut, and what comes faster than an honest agent tells is
dropped: the copies of one range are at most about 25 MB, and crowd nobody out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from events.bus import BusClient, BusError, Outcome, Post, Tailed
from events.envelope import Envelope
from events.messages import TransferProgress
from events.streams import Streams
from services.core.deployments.deployment import parse_transfer_id
from services.core.ranges.limits import Bucket, RangeLimits

#: About how many entries the shared progress stream keeps.
KEPT = 10_000
NOTE_CHARACTERS = 300
_PAUSE_SECONDS = 2.0


class ProgressRelay:
    """The relay of one tracker. `clock` gives monotonic seconds."""

    def __init__(self, *, bus: BusClient, streams: Streams, clock: Callable[[], float], limits: RangeLimits) -> None:
        self._bus = bus
        self._streams = streams
        self._clock = clock
        self._limits = limits
        self._budgets: dict[str, Bucket] = {}

    async def follow(self, streams: Sequence[str], after: str) -> None:
        """Copy until cancelled; one task for all ranges that were discovered together."""
        places = dict.fromkeys(streams, after)
        while True:
            try:
                async for entry in self._bus.tail(list(streams), after=places):
                    places[entry.stream] = entry.entry_id
                    said = self._copy(entry)
                    if said is not None:
                        await self._bus.commit(Outcome(posts=(Post(self._streams.progress, said, keep=KEPT),)))
            except BusError:
                await asyncio.sleep(_PAUSE_SECONDS)

    def _copy(self, entry: Tailed) -> Envelope | None:
        range_id, envelope = self._streams.range_of(entry.stream), entry.envelope
        if envelope is None or range_id is None or not isinstance(envelope.message, TransferProgress):
            return None
        progress = envelope.message
        if progress.kind not in ("pull", "load") or parse_transfer_id(progress.transfer_id) is None:
            return None
        if not self._within_budget(range_id):
            return None
        message = msgspec.structs.replace(progress, range_id=range_id, note=progress.note[:NOTE_CHARACTERS])
        return replace(envelope, message=message, source=f"agent@{range_id}", subject=range_id)

    def _within_budget(self, range_id: str) -> bool:
        budget = self._budgets.get(range_id)
        if budget is None:
            budget = Bucket(self._limits.progress_per_second, self._limits.progress_burst)
            self._budgets[range_id] = budget
        return budget.try_spend(1, self._clock()) == 0.0
