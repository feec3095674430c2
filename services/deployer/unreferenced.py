"""Report of unreferenced images: a line in the log when it changes, and a count for `/metrics`.

The reports themselves are made when somebody asks (`services.queries.unreferenced`). All replicas count the same.
"""

from __future__ import annotations

from events.bus import Outcome
from events.records import ANY
from services.core.ranges.unreferenced import UnreferencedSummary, summary_key
from services.deployer.context import DeployerContext
from services.queries.unreferenced import in_ranges
from services.runtime.telemetry import get_logger


class UnreferencedReporter:
    """The reporter of one replica. Remembers its last report, so that it logs changes only."""

    def __init__(self, context: DeployerContext) -> None:
        self._bus = context.bus
        self._streams = context.streams
        self._clock = context.clock
        self._told: dict[str, int] = {}
        self._log = get_logger(role="deployer")

    async def report(self) -> None:
        """One round over all ranges. Raises BusError when Redis is unavailable."""
        reports = await in_ranges(self._bus, self._streams)
        counts = {report.range_id: len(report.images) for report in reports if report.images}
        summary = UnreferencedSummary(images=sum(counts.values()), ranges=len(counts), at=self._clock())
        write = summary_key(self._streams.prefix).write(summary, expected=ANY)
        await self._bus.commit(Outcome(records=(write,)))
        for range_id, count in counts.items():
            if self._told.get(range_id) != count:
                advice = f"cyroid-images ranges unreferenced {range_id}"
                self._log.info("a range has unreferenced images", range=range_id, images=count, see=advice)
        self._told = counts
