"""What nobody wants is reported: a line in the log when it changes, and a count that `/metrics` tells.

The reports themselves are made when somebody asks (`services.unwanted`). All replicas count the same.
"""

from __future__ import annotations

import msgspec

from events.bus import Outcome, RecordWrite
from services.core.unwanted import UnwantedSummary, summary_key
from services.deploying.outcomes import Desk
from services.telemetry import get_logger
from services.unwanted import in_ranges


class Reporter:
    """For one replica. Remembers what it told, so that it does not tell it every minute."""

    def __init__(self, desk: Desk) -> None:
        self._speaker = desk.speaker
        self._streams = desk.streams
        self._clock = desk.clock
        self._told: dict[str, int] = {}
        self._log = get_logger(role="deployer")

    async def report(self) -> None:
        """One round over all ranges. Raises BusError when Redis is away."""
        reports = await in_ranges(self._speaker, self._streams)
        counts = {report.range_id: len(report.images) for report in reports if report.images}
        summary = UnwantedSummary(images=sum(counts.values()), ranges=len(counts), at=self._clock())
        write = RecordWrite(summary_key(self._streams.prefix), msgspec.json.encode(summary))
        await self._speaker.commit(Outcome(records=(write,)))
        for range_id, count in counts.items():
            if self._told.get(range_id) != count:
                advice = f"cyroid-images ranges unwanted {range_id}"
                self._log.info("a range has images that nobody wants", range=range_id, images=count, see=advice)
        self._told = counts
