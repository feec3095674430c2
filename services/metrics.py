"""Every number that Prometheus may scrape, in one place.

Labels are bounded: a role, a path, an outcome, a message type. Never a tag, a digest, a range or a deployment, whose
number grows for ever.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry(auto_describe=True)
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)

bus_events = Counter(
    "cyroid_bus_events",
    "What workers did with entries, by group: handled, failed, waited, dead_letters, takeovers, lost_leases, …",
    ("group", "event"),
    registry=REGISTRY,
)
handler_seconds = Histogram(
    "cyroid_handler_seconds",
    "How long one handler ran, by group.",
    ("group",),
    buckets=_SECONDS,
    registry=REGISTRY,
)
transfers = Counter(
    "cyroid_transfers",
    "Images moved, by kind (push, pull, load, export), way (present, layers, save, pulled, loaded, …) and outcome.",
    ("kind", "way", "outcome"),
    registry=REGISTRY,
)
transferred_bytes = Counter(
    "cyroid_transferred_bytes",
    "Bytes that were really sent, by kind and way.",
    ("kind", "way"),
    registry=REGISTRY,
)
reused_bytes = Counter(
    "cyroid_reused_bytes",
    "Bytes that did not have to be sent because the other side had the layer, by kind.",
    ("kind",),
    registry=REGISTRY,
)
transfer_seconds = Histogram(
    "cyroid_transfer_seconds",
    "How long moving one image took, by kind and way.",
    ("kind", "way"),
    buckets=_SECONDS,
    registry=REGISTRY,
)
source_fallbacks = Counter(
    "cyroid_layer_source_fallbacks",
    "Times a layer source did not give a layer and the next one was tried, by source and error code.",
    ("source", "reason"),
    registry=REGISTRY,
)
deployments = Counter(
    "cyroid_deployments",
    "Deployments ended, by outcome (succeeded, failed, cancelled).",
    ("outcome",),
    registry=REGISTRY,
)
dependency_up = Gauge(
    "cyroid_dependency_up",
    "Whether a dependency answered when last asked (redis, registry, engine).",
    ("dependency",),
    registry=REGISTRY,
)

oldest_seconds = Gauge(
    "cyroid_group_oldest_seconds",
    "Age of the oldest entry that a group has not finished (state unacked) or not begun (undelivered), by stream.",
    ("stream", "group", "state"),
    registry=REGISTRY,
)
backlog = Gauge(
    "cyroid_group_entries",
    "Entries of a group under way (state pending), put aside (deferred) or not read yet (lag), by stream.",
    ("stream", "group", "state"),
    registry=REGISTRY,
)
dead_letters = Gauge(
    "cyroid_dead_letters",
    "Dead letters that lie there until somebody redrives or drops them, by stream (dead; range_dead for all ranges).",
    ("stream",),
    registry=REGISTRY,
)
unwanted_images = Gauge(
    "cyroid_unwanted_images",
    "Images that no deployment wants, by where (ranges: on all ranges' engines together), counted once a minute.",
    ("where",),
    registry=REGISTRY,
)


class WorkerMetrics:
    """What a worker tells about itself (`events.observer.Observer`), counted here."""

    def count(self, group: str, counter: str, amount: int = 1) -> None:
        bus_events.labels(group=group, event=counter).inc(amount)

    def took(self, group: str, seconds: float) -> None:
        handler_seconds.labels(group=group).observe(seconds)


def exposition() -> bytes:
    """All of it in Prometheus' text format."""
    return generate_latest(REGISTRY)
