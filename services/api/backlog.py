"""Is anything stuck? How far each group is behind on each stream, and what lies about unwanted, as metrics.

All ranges' inboxes count as one stream, with the worst of them, and so do their outboxes: a label per range would grow
for ever.
"""

from __future__ import annotations

from collections import defaultdict

import msgspec

from events.lease import Bus
from events.streams import Streams
from services import metrics
from services.core.unwanted import UnwantedSummary, summary_key


async def measure(bus: Bus, streams: Streams) -> None:
    """Set the gauges. Raises BusError when Redis is away."""
    names = {streams.images: "images", streams.deployments: "deployments", streams.deployer: "deployer"}
    names |= dict.fromkeys(await bus.discover(streams.inbox_pattern), "inbox")
    names |= dict.fromkeys(await bus.discover(streams.outbox_pattern), "outbox")
    oldest: dict[tuple[str, str, str], float] = defaultdict(float)
    entries: dict[tuple[str, str, str], int] = defaultdict(int)
    for status in await bus.groups(list(names)):
        stream = names[status.stream]
        for state, age in (
            ("unacked", status.oldest_unacked_seconds),
            ("undelivered", status.oldest_undelivered_seconds),
        ):
            key = (stream, status.group, state)
            oldest[key] = max(oldest[key], age)
        for state, count in (("pending", status.pending), ("deferred", status.deferred), ("lag", status.lag or 0)):
            entries[stream, status.group, state] += count
    of_ranges = await bus.discover(streams.range_dead_pattern)
    letters, *others = await bus.lengths([streams.dead, *of_ranges])
    metrics.dead_letters.labels(stream="dead").set(letters)
    metrics.dead_letters.labels(stream="range_dead").set(sum(others))
    counted = await bus.load(summary_key(streams.prefix))
    if counted is not None:
        summary = msgspec.json.decode(counted.value, type=UnwantedSummary)
        metrics.unwanted_images.labels(where="ranges").set(summary.images)
    metrics.oldest_seconds.clear()  # a group that is gone is told no more
    metrics.backlog.clear()
    for (stream, group, state), age in oldest.items():
        metrics.oldest_seconds.labels(stream=stream, group=group, state=state).set(age)
    for (stream, group, state), count in entries.items():
        metrics.backlog.labels(stream=stream, group=group, state=state).set(count)
