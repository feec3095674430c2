"""Metrics of all processes, for Prometheus.

Labels are bounded: a role, a path, an outcome, a message type, a host. Never a tag, a digest, a range or a deployment,
whose number grows for ever, nor a text that a range chooses.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)  # memory, CPU and open files of this process, under Prometheus' usual names
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
not_mounted = Counter(
    "cyroid_layers_not_mounted",
    "Images that a range takes as mounted layers and that were pulled all the same, by error code.",
    ("reason",),
    registry=REGISTRY,
)
transfer_seconds = Histogram(
    "cyroid_transfer_seconds",
    "How long moving one image took, by kind and way.",
    ("kind", "way"),
    buckets=_SECONDS,
    registry=REGISTRY,
)
range_transfers = Counter(
    "cyroid_range_transfers",
    "Transfers to ranges that ended, as the deployer was told: by kind (pull, load), way and outcome.",
    ("kind", "way", "outcome"),
    registry=REGISTRY,
)
range_transfer_failures = Counter(
    "cyroid_range_transfer_failures",
    "Those of them that did not bring the image, by kind and error code.",
    ("kind", "reason"),
    registry=REGISTRY,
)
range_transferred_bytes = Counter(
    "cyroid_range_transferred_bytes",
    "Bytes that ranges received for images, as they say, by way.",
    ("way",),
    registry=REGISTRY,
)
range_transfer_seconds = Histogram(
    "cyroid_range_transfer_seconds",
    "How long an image took from its slot until the range had it, by way.",
    ("way",),
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
collected_blobs = Counter(
    "cyroid_collected_blobs",
    "Blobs of the registry that collections quarantined, restored or removed (kind).",
    ("kind",),
    registry=REGISTRY,
)
for _kind in ("quarantined", "restored", "removed"):
    collected_blobs.labels(kind=_kind)  # so that a collector that has not collected yet says 0, not nothing
collected_bytes = Counter("cyroid_collected_bytes", "Bytes that collections freed.", registry=REGISTRY)
collection_seconds = Histogram(
    "cyroid_collection_seconds", "How long one collection took.", buckets=_SECONDS, registry=REGISTRY
)
collection_last = Gauge(
    "cyroid_collection_last_seconds", "When the last collection ended, in seconds since the epoch.", registry=REGISTRY
)
reclaimed_bytes = Counter(
    "cyroid_reclaimed_bytes", "Bytes of the host engine's copies that were freed.", registry=REGISTRY
)
store_free_bytes = Gauge(
    "cyroid_store_free_bytes", "Free bytes of the disk of the registry's storage.", registry=REGISTRY
)
store_pressure = Gauge("cyroid_store_pressure", "1 while that disk has too little free.", registry=REGISTRY)
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
    "Entries of a group that are pending, deferred or not read yet (lag), by stream and state.",
    ("stream", "group", "state"),
    registry=REGISTRY,
)
dead_letters = Gauge(
    "cyroid_dead_letters",
    "Dead letters until somebody redrives or drops them, by stream (dead; range_dead and refused for all ranges).",
    ("stream",),
    registry=REGISTRY,
)
unwanted_images = Gauge(
    "cyroid_unwanted_images",
    "Unreferenced images, by where (ranges: on all ranges' engines together), counted once a minute.",
    ("where",),
    registry=REGISTRY,
)
hosts = Gauge(
    "cyroid_hosts", "Hosts of the installation, by state: alive or away (no heartbeat).", ("state",), registry=REGISTRY
)
role_processes = Gauge(
    "cyroid_role_processes",
    "Processes that serve a role, by their heartbeats; 0 for a role that was served within the last day.",
    ("role",),
    registry=REGISTRY,
)
ranges = Gauge(
    "cyroid_ranges",
    "Ranges that ever reported, by their agent: alive, away or unreadable.",
    ("agent",),
    registry=REGISTRY,
)
unreadable_layers = Gauge(
    "cyroid_layers_unreadable",
    "Mounted layers that cannot be read, by host and by who found that (layer-mounter, agent).",
    ("host", "found_by"),
    registry=REGISTRY,
)


class WorkerMetrics:
    """Metrics of a worker (`events.worker.observer.Observer`)."""

    def count(self, group: str, counter: str, amount: int = 1) -> None:
        bus_events.labels(group=group, event=counter).inc(amount)

    def took(self, group: str, seconds: float) -> None:
        handler_seconds.labels(group=group).observe(seconds)


def exposition() -> bytes:
    """All metrics in Prometheus's text format."""
    return generate_latest(REGISTRY)
