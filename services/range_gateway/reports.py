"""Reports of ranges that exceeded a limit: a log line, a record (`services.queries.limited_ranges`), an event.

A range is noted at once when it is cut off, and at most once a minute otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from events.bus import BusClient, BusError, IndexWrite, Outcome, Post, RecordWrite
from events.envelope import Envelope
from events.messages import RangeLimited
from events.streams import Streams
from services.core.ranges.limits import Limit
from services.queries.limited_ranges import KEPT_SECONDS, LimitedRange, index_key, record_key
from services.runtime.telemetry import get_logger

NOTED_SECONDS = 60.0

log = get_logger(role="range-gateway")


@dataclass(slots=True)
class _Noted:
    times: Counter[Limit] = field(default_factory=Counter)
    cut_off: int = 0
    limit: Limit = "rate"
    noted_at: float = float("-inf")
    due: bool = False
    cut: bool = False


class Reports:
    """Counts with `met`, and writes what is due with `write`."""

    def __init__(self, bus: BusClient, streams: Streams, *, source: str, clock: Callable[[], float]) -> None:
        self._bus = bus
        self._streams = streams
        self._source = source
        self._clock = clock
        self._ranges: dict[str, _Noted] = {}

    def met(self, range_id: str, limit: Limit, *, cut: bool = False) -> None:
        noted = self._ranges.setdefault(range_id, _Noted())
        noted.times[limit] += 1
        noted.limit, noted.due = limit, True
        if cut:
            noted.cut_off += 1
            noted.cut = True

    async def write(self) -> None:
        """Log, record and publish what is due. With Redis unavailable it is written the next time."""
        now = self._clock()
        for range_id, noted in self._ranges.items():
            if noted.due and (noted.cut or now - noted.noted_at >= NOTED_SECONDS):
                message = RangeLimited(
                    range_id=range_id, limit=noted.limit, times=noted.times[noted.limit], cut_off=noted.cut
                )
                log.warning(
                    "range over its limits",
                    range=range_id,
                    limit=noted.limit,
                    cut_off=noted.cut,
                    times=dict(noted.times),
                )
                noted.noted_at, noted.due, noted.cut = now, False, False
                try:
                    await self._bus.commit(self._outcome(message, noted))
                except BusError:
                    noted.due = True

    def _outcome(self, message: RangeLimited, noted: _Noted) -> Outcome:
        at = datetime.now(UTC)
        record = LimitedRange(
            range_id=message.range_id,
            last=at,
            limit=noted.limit,
            times={str(limit): times for limit, times in noted.times.items()},
            cut_off=noted.cut_off,
        )
        prefix = self._streams.prefix
        return Outcome(
            posts=(
                Post(
                    self._streams.deployments,
                    Envelope(message=message, source=self._source, subject=message.range_id, time=at),
                ),
            ),
            records=(
                RecordWrite(
                    key=record_key(prefix, message.range_id),
                    value=msgspec.json.encode(record),
                    expires_seconds=KEPT_SECONDS,
                ),
            ),
            index=(IndexWrite(index_key(prefix), message.range_id, at.timestamp()),),
        )
