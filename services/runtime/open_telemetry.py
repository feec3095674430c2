"""Spans of messages by OpenTelemetry, sent to a collector as OTLP over HTTP. The only module that imports it.

Attributes follow the semantic conventions for messaging; what is this project's own begins with `cyroid.`. A span's
name has the message's type in place of the stream: a few streams carry all types, and each range has its own streams.
Where, how many and how long is set by the standard variables (`OTEL_EXPORTER_OTLP_*`, `OTEL_TRACES_SAMPLER`,
`OTEL_BSP_*`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from events.bus import BusUnavailable, Delivery, HandlingError, Unavailable
from events.codec import wire_type
from events.envelope import Envelope
from services.core.deployments.deployment import parse_transfer_id
from services.runtime.telemetry import get_logger

log = get_logger(role="tracing")
#: What the last spans get at the end of a process.
CLOSE_SECONDS = 3.0
#: More characters of a value, which may come from a range, are not sent.
VALUE_CHARACTERS = 256
_FIELDS = {
    "reference": "cyroid.image",
    "image_id": "cyroid.image_id",
    "range_id": "cyroid.range",
    "deployment_id": "cyroid.deployment",
    "transfer_id": "cyroid.transfer",
    "host": "cyroid.host",
    "how": "cyroid.arrival",
    "why": "cyroid.why",
}
_PROPAGATOR = TraceContextTextMapPropagator()


class SpanMaker:
    """`services.runtime.tracing.Tracer`. Raises ValueError for a standard variable that is wrong.

    `exporter` in place of OTLP is for tests.
    """

    def __init__(self, *, process: str, exporter: SpanExporter | None = None) -> None:
        for name in ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # `ToldOnce` says once what they say of each batch
        self._exporter = ToldOnce(exporter or OTLPSpanExporter())
        ours = Resource.create({"service.name": "cyroid-images", "service.instance.id": process})
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before ours.
        self._provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("cyroid-images")

    def publication(self, stream: str, envelope: Envelope) -> SentSpan:
        """Begin the producer span of a message."""
        span = self._begin("send", stream, envelope, SpanKind.PRODUCER)
        return SentSpan(span, with_context(envelope, span))

    @contextmanager
    def handling(self, group: str, delivery: Delivery[Any]) -> Iterator[Delivery[Any]]:
        """The consumer span of one run of a handler; ended with its outcome or its error."""
        span = self._begin("process", delivery.stream, delivery.envelope, SpanKind.CONSUMER)
        span.set_attribute("messaging.consumer.group.name", group)
        span.set_attribute("cyroid.attempt", delivery.attempt)
        span.set_attribute("cyroid.source", delivery.envelope.source[:VALUE_CHARACTERS])
        try:
            yield replace(delivery, envelope=with_context(delivery.envelope, span))
        except BaseException as problem:
            _failed(span, problem)
            raise
        else:
            span.set_attribute("cyroid.outcome", "handled")
        finally:
            span.end()

    async def close(self) -> None:
        """Send what is left, within `CLOSE_SECONDS`: a collector that is away keeps no process from ending."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="tracing-close", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await done.wait()
        except TimeoutError:
            log.warning("the last spans were not sent", waited_seconds=CLOSE_SECONDS)

    def _begin(self, operation: str, stream: str, envelope: Envelope, kind: SpanKind) -> Span:
        wire = wire_type(envelope.message)
        parent = _PROPAGATOR.extract({"traceparent": envelope.traceparent or ""}, Context())  # not this task's
        attributes = {
            "messaging.system": "redis",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": stream,
            "messaging.message.id": envelope.id,
            "messaging.message.conversation_id": envelope.correlation_id,
            "cyroid.type": wire,
            **described(envelope),
        }
        name = f"{operation} {wire.rpartition('.v')[0]}"
        return self._tracer.start_span(name, context=parent, kind=kind, attributes=attributes)


@dataclass(frozen=True, slots=True)
class SentSpan:
    """A producer span, begun. One that is never ended is never sent."""

    span: Span
    envelope: Envelope

    def end(self, problem: BaseException | None = None) -> None:
        """End it; with a `problem`, as one of which it is not known whether the message was published."""
        if problem is not None:
            _failed(self.span, problem)
        self.span.end()


class ToldOnce(SpanExporter):
    """An exporter that says once that the collector is away, and once that it is there again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; those of a collector that is away are lost."""
        result = self._exporter.export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away and not self._away:
            log.warning("spans are lost: the collector of OTEL_EXPORTER_OTLP_ENDPOINT does not take them")
        elif self._away and not away:
            log.info("the collector takes spans again")
        self._away = away
        return result

    def shutdown(self) -> None:
        """End it, with the try under way."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return True


def with_context(envelope: Envelope, span: Span) -> Envelope:
    """The envelope with this span as the context of what follows from it."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context=set_span_in_context(span))
    return replace(envelope, traceparent=carrier.get("traceparent", envelope.traceparent))


def described(envelope: Envelope) -> dict[str, str]:
    """What a message is about, as attributes of a span: image, range, deployment, transfer, host."""
    found = {}
    for field, name in _FIELDS.items():
        value = getattr(envelope.message, field, None)
        if isinstance(value, str) and value:
            found[name] = value[:VALUE_CHARACTERS]
    transfer = parse_transfer_id(found.get("cyroid.transfer", ""))
    if transfer is not None:
        found.setdefault("cyroid.deployment", transfer[0])
    return found


def _failed(span: Span, problem: BaseException) -> None:
    """How a handler ended otherwise: given up, tried again, put off, or cut off."""
    match problem:
        case HandlingError(final=True):
            outcome = "given_up"
        case Unavailable() | BusUnavailable():
            outcome = "waited"
        case asyncio.CancelledError():
            outcome = "cut_off"
        case _:
            outcome = "failed"
    code = problem.code if isinstance(problem, HandlingError) else type(problem).__name__
    span.set_attribute("cyroid.outcome", outcome)
    span.set_attribute("error.type", code[:VALUE_CHARACTERS])
    span.set_status(Status(StatusCode.ERROR, str(problem)[:VALUE_CHARACTERS]))
