"""Spans by OpenTelemetry: whose child each is, what it says, and what a collector that is away costs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from events.bus import Delivery, Permanent, Unavailable
from events.envelope import Envelope
from events.messages import PullRequested, PushRequested
from services.runtime import open_telemetry
from services.runtime.open_telemetry import SpanMaker, ToldOnce, described

REQUESTED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _delivery(traceparent: str | None = None) -> Delivery[PushRequested]:
    envelope = Envelope(
        message=PushRequested(reference="web:1"), source="test", subject="web:1", traceparent=traceparent
    )
    return Delivery(envelope, "cyroid:images", "1-0")


async def _spans(maker: SpanMaker, exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    await maker.close()
    return {span.name: span for span in exporter.get_finished_spans()}


async def test_a_handlers_span_is_the_child_of_the_publishers() -> None:
    """And what the handler publishes is a child of the handler's, with attributes as the conventions name them."""
    exporter = InMemorySpanExporter()
    maker = SpanMaker(process="host1.7", exporter=exporter)
    with maker.handling("registry-pusher", _delivery(REQUESTED)) as seen:
        caused = seen.envelope.causes(PushRequested(reference="b:1"), source="p@h", subject="b:1")
        sent = maker.publication("cyroid:images", caused)
        sent.end()
    spans = await _spans(maker, exporter)
    process, send = spans["process image.push_requested"], spans["send image.push_requested"]
    assert process.parent is not None
    assert send.parent is not None
    assert (f"{process.parent.trace_id:032x}", f"{process.parent.span_id:016x}") == tuple(REQUESTED.split("-")[1:3])
    assert send.parent.span_id == process.context.span_id
    assert sent.envelope.traceparent == f"00-{REQUESTED.split('-')[1]}-{send.context.span_id:016x}-01"
    assert (process.kind, send.kind) == (SpanKind.CONSUMER, SpanKind.PRODUCER)
    told = dict(process.attributes or {})
    assert told.pop("messaging.message.id")
    assert told.pop("messaging.message.conversation_id")
    assert told == {
        "messaging.system": "redis",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "cyroid:images",
        "messaging.consumer.group.name": "registry-pusher",
        "cyroid.type": "image.push_requested.v1",
        "cyroid.image": "web:1",
        "cyroid.why": "manual",
        "cyroid.attempt": 1,
        "cyroid.source": "test",
        "cyroid.outcome": "handled",
    }
    assert process.resource.attributes["service.name"] == "cyroid-images"
    assert process.resource.attributes["service.instance.id"] == "host1.7"


@pytest.mark.parametrize("broken", [None, "", "00-zz-zz-01", "x" * 512, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_a_message_without_a_trace_begins_one(broken: str | None) -> None:
    """Also one whose trace context, which anybody may write, cannot be read."""
    exporter = InMemorySpanExporter()
    maker = SpanMaker(process="p", exporter=exporter)
    with maker.handling("g", _delivery(broken)):
        pass
    (span,) = (await _spans(maker, exporter)).values()
    assert span.parent is None


@pytest.mark.parametrize(
    ("problem", "outcome", "code"),
    [
        (Permanent("no such image", code="not_found"), "given_up", "not_found"),
        (Unavailable("no engine"), "waited", "unavailable"),
        (OSError("disk"), "failed", "OSError"),
        (asyncio.CancelledError(), "cut_off", "CancelledError"),
    ],
)
async def test_a_handlers_error_is_in_its_span(problem: BaseException, outcome: str, code: str) -> None:
    """With the error's code, and what becomes of the message."""
    exporter = InMemorySpanExporter()
    maker = SpanMaker(process="p", exporter=exporter)
    with pytest.raises(type(problem)), maker.handling("g", _delivery()):
        raise problem
    (span,) = (await _spans(maker, exporter)).values()
    assert span.attributes is not None
    assert (span.attributes["cyroid.outcome"], span.attributes["error.type"]) == (outcome, code)
    assert span.status.status_code is StatusCode.ERROR


def test_a_message_says_what_it_is_about() -> None:
    """Range, image and deployment; a value that a range wrote is cut."""
    message = PullRequested(transfer_id="d-1.0.2", reference="w" * 1000, image_id="sha256:1")
    found = described(Envelope(message=message, source="s", subject="r"))
    assert found == {
        "cyroid.image": "w" * 256,
        "cyroid.image_id": "sha256:1",
        "cyroid.transfer": "d-1.0.2",
        "cyroid.deployment": "d-1",
    }


class Away(SpanExporter):
    """A collector that does not answer, in the end for ever."""

    def __init__(self, answers: Sequence[SpanExportResult]) -> None:
        self._answers = list(answers)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._answers.pop(0)

    def shutdown(self) -> None:
        """Nothing to end."""


def test_a_collector_that_is_away_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Once when it goes, once when it comes, however many batches are lost."""
    lost, taken = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
    exporter = ToldOnce(Away([taken, lost, lost, lost, taken, taken, lost]))
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_telemetry.log, "warning", lambda text, **more: told.append("away"), raising=False)
        patch.setattr(open_telemetry.log, "info", lambda text, **more: told.append("there"), raising=False)
        for _ in range(7):
            exporter.export(())
    assert told == ["away", "there", "away"]


async def test_a_collector_that_is_away_keeps_no_process_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last spans get a bounded time; nothing refuses connections as fast as no listener at all."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(open_telemetry, "CLOSE_SECONDS", 0.2)
    maker = SpanMaker(process="p")
    with maker.handling("g", _delivery()):
        pass
    started = monotonic()
    await maker.close()
    assert monotonic() - started < 30
    assert logging.getLogger("opentelemetry.exporter").level == logging.CRITICAL
