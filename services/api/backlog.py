"""Backlog as metrics: how far each consumer group is behind on each stream, and how many images are unreferenced;
hosts, ranges and processes of roles that are there.

All ranges' inboxes count as one stream, with the worst of them, and so do their outboxes: a label per range would grow
for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from events.lease import Bus
from events.streams import GROUPS, Streams
from services.core.hosts.hosts import HostKeys
from services.core.ranges.unreferenced import summary_key
from services.runtime import metrics
from services.runtime.heartbeat import processes

#: A role that no process serves is told for so long: one that was taken out on purpose is forgotten then.
ROLE_REMEMBERED = timedelta(days=1)


async def measure(bus: Bus, streams: Streams, range_ids: Collection[str]) -> None:
    """Set the gauges, for the services and these ranges. Raises BusError when Redis is unavailable."""
    ranges = sorted(range_ids)
    names = {streams.images: "images", streams.deployments: "deployments", streams.deployer: "deployer"}
    names |= dict.fromkeys(map(streams.inbox, ranges), "inbox")
    names |= dict.fromkeys(map(streams.outbox, ranges), "outbox")
    oldest: dict[tuple[str, str, str], float] = defaultdict(float)
    entries: dict[tuple[str, str, str], int] = defaultdict(int)
    for status in await bus.groups(list(names)):
        if status.group not in GROUPS:
            continue  # whoever may make groups would make series of metrics
        stream = names[status.stream]
        for state, age in (
            ("unacked", status.oldest_unacked_seconds),
            ("undelivered", status.oldest_undelivered_seconds),
        ):
            key = (stream, status.group, state)
            oldest[key] = max(oldest[key], age)
        for state, count in (("pending", status.pending), ("deferred", status.deferred), ("lag", status.lag or 0)):
            entries[stream, status.group, state] += count
    kinds = {"range_dead": map(streams.range_dead, ranges), "refused": map(streams.refused, ranges)}
    metrics.dead_letters.labels(stream="dead").set(sum(await bus.lengths([streams.dead])))
    for kind, dead in kinds.items():
        metrics.dead_letters.labels(stream=kind).set(sum(await bus.lengths(list(dead))))
    summary = (await summary_key(streams.prefix).load(bus)).value
    if summary is not None:
        metrics.unwanted_images.labels(where="ranges").set(summary.images)
    await _measure_hosts(bus, streams)
    await _measure_roles(bus, streams)
    metrics.oldest_seconds.clear()  # a group that is gone is told no more
    metrics.backlog.clear()
    for (stream, group, state), age in oldest.items():
        metrics.oldest_seconds.labels(stream=stream, group=group, state=state).set(age)
    for (stream, group, state), count in entries.items():
        metrics.backlog.labels(stream=stream, group=group, state=state).set(count)


async def _measure_hosts(bus: Bus, streams: Streams) -> None:
    names = await bus.members(HostKeys(streams.prefix).all)
    beats = await bus.beats([streams.host_alive(name) for name in names]) if names else []
    away = sum(beat is None for beat in beats)
    metrics.hosts.labels(state="alive").set(len(names) - away)
    metrics.hosts.labels(state="away").set(away)


async def _measure_roles(bus: Bus, streams: Streams) -> None:
    counts = await processes(bus, streams.prefix, since=datetime.now(UTC) - ROLE_REMEMBERED)
    metrics.role_processes.clear()
    for role, count in counts.items():
        metrics.role_processes.labels(role=role).set(count)


def measure_ranges(counts: Mapping[str, int]) -> None:
    """Set the gauge of ranges by their agent's state."""
    for agent in ("alive", "away", "unreadable"):
        metrics.ranges.labels(agent=agent).set(counts.get(agent, 0))
