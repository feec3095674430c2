"""Outcome of a push: its messages, records, metrics, and log line."""

from __future__ import annotations

import time

from events.bus import Outcome, Post
from events.envelope import Envelope
from events.messages import ImagePushed
from events.streams import Streams
from services.core.images import prompts
from services.errors import CyroidError
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.progress import LayerCounter, ProgressCounters
from services.runtime import metrics
from services.runtime.telemetry import Logger


def pushed_outcome(pushed: ImagePushed, said: Envelope, *, streams: Streams, encodings: LayerEncodings) -> Outcome:
    """The outcome of a push that succeeded; `said` carries `pushed`. An open prompt for the image is answered by it."""
    gone = prompts.answered(streams.prefix, pushed.reference)
    seen = encodings.seen([layer.diff_id for layer in pushed.layers], pushed.repository)
    return Outcome(posts=(Post(streams.images, said),), records=gone.records, index=(*gone.index, *seen.index))


def whole(pushed: ImagePushed) -> ProgressCounters:
    """The progress of a push that ended well: each layer counts once, sent or not."""
    layers = set(pushed.layers)
    total_bytes = sum(layer.size_bytes for layer in layers)
    return ProgressCounters(
        done_bytes=total_bytes,
        total_bytes=total_bytes,
        layers_done=len(layers),
        layers_total=len(layers),
        layers={one.diff_id: LayerCounter(one.size_bytes, one.size_bytes, "done") for one in pushed.layers},
    )


class PushRecord:
    """Record of one push, for its metrics and log line. `changed` keeps its progress."""

    def __init__(self, log: Logger, reference: str, correlation_id: str) -> None:
        self._log = log
        self._reference = reference
        self._correlation_id = correlation_id
        self._started = time.monotonic()
        self._last = ProgressCounters()

    def changed(self, counters: ProgressCounters) -> None:
        self._last = counters

    def failed(self, problem: CyroidError) -> None:
        metrics.transfers.labels(kind="push", way="none", outcome=problem.code).inc()
        self._log.warning(
            "push failed",
            image=self._reference,
            path="none",
            bytes=self._last.done_bytes,
            seconds=round(time.monotonic() - self._started, 3),
            code=problem.code,
            why=str(problem),
            correlation_id=self._correlation_id,
        )

    def ended(self, pushed: ImagePushed) -> None:
        metrics.transfers.labels(kind="push", way=pushed.method, outcome="done").inc()
        metrics.transferred_bytes.labels(kind="push", way=pushed.method).inc(pushed.sent_bytes)
        metrics.reused_bytes.labels(kind="push").inc(pushed.reused_bytes)
        metrics.transfer_seconds.labels(kind="push", way=pushed.method).observe(pushed.seconds)
        self._log.info(
            "pushed",
            image=pushed.reference,
            path=pushed.method,
            bytes=pushed.sent_bytes,
            reused_bytes=pushed.reused_bytes,
            seconds=pushed.seconds,
            image_id=pushed.image_id,
            correlation_id=self._correlation_id,
        )
