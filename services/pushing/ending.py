"""The end of a push, whoever began it: what is told and stored, the numbers, and the one line in the log."""

from __future__ import annotations

import time

from events.bus import Outcome, Post
from events.envelope import Envelope
from events.messages import ImagePushed
from events.streams import Streams
from services import metrics
from services.core import prompts
from services.errors import CyroidError
from services.pushing.layer_forms import LayerForms
from services.pushing.tally import Tally
from services.telemetry import Logger


def pushed_outcome(pushed: ImagePushed, said: Envelope, *, streams: Streams, forms: LayerForms) -> Outcome:
    """`said` carries `pushed`. An open question whether to push the image is answered by it."""
    gone = prompts.answered(streams.prefix, pushed.reference)
    seen = forms.seen([layer.diff_id for layer in pushed.layers], pushed.repository)
    return Outcome(posts=(Post(streams.images, said),), records=gone.records, index=(*gone.index, *seen.index))


def whole(pushed: ImagePushed) -> Tally:
    """How far a push is that ended well: each layer counts once, sent or not."""
    layers = set(pushed.layers)
    total_bytes = sum(layer.size_bytes for layer in layers)
    return Tally(done_bytes=total_bytes, total_bytes=total_bytes, layers_done=len(layers), layers_total=len(layers))


class Account:
    """One push from its beginning to the one line about its end. `changed` keeps how far it came."""

    def __init__(self, log: Logger, reference: str, correlation_id: str) -> None:
        self._log = log
        self._reference = reference
        self._correlation_id = correlation_id
        self._started = time.monotonic()
        self._last = Tally()

    def changed(self, tally: Tally) -> None:
        self._last = tally

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
