"""Unreadable mounted layers as a metric, for each host and for whoever found them: the layer-mounter, or agents.

A host is one that reported or mounts layers. What a range says makes no series: of a host that nobody knows it counts
without one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from events.bus import BusClient
from services.core.mounts.problems import ReportedLayers
from services.queries.mounted_layers import all_unreadable
from services.runtime import metrics

_FINDERS = ("layer-mounter", "agent")


async def measure_layers(bus: BusClient, prefix: str, reported: Iterable[ReportedLayers]) -> None:
    """Set the gauge; a layer counts once for a host and a finder, in however many ranges. Raises BusError."""
    hosts, unreadable = await all_unreadable(bus, prefix, reported)
    counts = Counter(
        (host, finder) for host, finder, _ in {(one.host, one.found_by, one.diff_id) for one in unreadable}
    )
    metrics.unreadable_layers.clear()  # a host that was forgotten is told no more
    for host in hosts:
        for finder in _FINDERS:
            metrics.unreadable_layers.labels(host=host, found_by=finder).set(0)
    for (host, finder), count in counts.items():
        metrics.unreadable_layers.labels(host=host, found_by=finder).set(count)
