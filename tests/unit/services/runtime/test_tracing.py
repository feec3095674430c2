"""Tracing: off unless asked for, and a span exactly for what was published."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from events.bus import BusUnavailable, Delivery, Outcome, Post, RecordConflict, RecordWrite
from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import PushRequested, TransferProgress
from services.runtime.tracing import TracedBus, traced, tracer_of, untraced, wanted

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@dataclass
class Begun:
    """A publication that notes its end."""

    tracer: Spans
    envelope: Envelope

    def end(self, problem: BaseException | None = None) -> None:
        self.tracer.ended.append((self.envelope.subject, problem))


@dataclass
class Spans:
    """A tracer that notes what it is asked."""

    ended: list[tuple[str, BaseException | None]] = field(default_factory=list)

    def publication(self, stream: str, envelope: Envelope) -> Begun:
        return Begun(self, replace(envelope, traceparent=f"span of {envelope.subject}"))

    @contextmanager
    def handling(self, group: str, delivery: Delivery[Any]) -> Iterator[Delivery[Any]]:
        yield delivery

    async def close(self) -> None:
        self.ended.append(("closed", None))


def _asked(name: str) -> Envelope:
    return Envelope(message=PushRequested(reference=name), source="test", subject=name)


def _progress() -> Envelope:
    message = TransferProgress(transfer_id="t", reference="a:1", kind="push", phase="sending")
    return Envelope(message=message, source="test", subject="progress")


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_standard_variables_turn_spans_on(environment: dict[str, str], asked: bool) -> None:
    """An endpoint turns them on, and what the standard says turns them off again."""
    assert wanted(environment) is asked


def test_nothing_is_imported_when_off() -> None:
    """A process that makes no spans does not load OpenTelemetry, nor what it stands on."""
    code = (
        "import asyncio, sys\n"
        "from services.adapters.openers import REAL\n"
        "from services.settings import Settings\n"
        "async def main():\n"
        "    async with REAL.bus(Settings()): pass\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('opentelemetry', 'google', 'requests')])"
    )
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_bus_is_itself_when_off() -> None:
    """No call takes a way round."""
    bus = MemoryBus()
    async with traced(bus, {}, process="test") as seen:
        assert seen is bus
    assert tracer_of(bus) is None
    assert untraced(bus) is bus


async def test_each_message_that_is_published_is_a_span_and_carries_it() -> None:
    """Also as part of a commit; progress, which is lossy, has none."""
    bus, spans = MemoryBus(), Spans()
    both = TracedBus(bus, spans)
    await both.publish("s", _asked("a:1"), _asked("b:1"), _progress())
    await both.commit(Outcome(posts=(Post("s", _asked("c:1")), Post("s", _progress(), keep=10))))
    assert spans.ended == [("a:1", None), ("b:1", None), ("c:1", None)]
    seen = [entry.envelope async for entry in both.bus.tail(["s"], after="0", follow=False)]
    assert [one.traceparent for one in seen if one] == ["span of a:1", "span of b:1", None, "span of c:1", None]


async def test_what_is_not_published_is_no_span() -> None:
    """A conflict of records published nothing; of a commit without an answer nobody knows, and its span says so."""
    bus, spans = MemoryBus(), Spans()
    both = TracedBus(bus, spans)
    with pytest.raises(RecordConflict):
        await both.commit(Outcome(posts=(Post("s", _asked("a:1")),), records=(RecordWrite("k", b"1", expected=5),)))
    assert spans.ended == []
    away = BusUnavailable("gone")

    class Gone(MemoryBus):
        async def commit(self, outcome: Outcome) -> None:
            raise away

    with pytest.raises(BusUnavailable):
        await TracedBus(Gone(), spans).commit(Outcome(posts=(Post("s", _asked("b:1")),)))
    assert spans.ended == [("b:1", away)]


async def test_an_endpoint_gives_a_traced_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all other calls as the bus has them; leaving sends what is left."""
    bus, spans = MemoryBus(), Spans()
    monkeypatch.setattr("services.runtime.open_telemetry.SpanMaker", lambda process: spans)
    async with traced(bus, ENDPOINT, process="test") as seen:
        assert tracer_of(seen) is spans
        assert untraced(seen) is bus
        assert await seen.members("none") == []
    assert spans.ended == [("closed", None)]


async def test_a_wrong_variable_costs_spans_and_no_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenTelemetry cannot read is logged, and messages pass without spans."""
    bus = MemoryBus()
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    async with traced(bus, ENDPOINT, process="test") as seen:
        assert seen is bus


async def test_without_the_package_messages_pass_without_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra says so, and runs."""
    bus = MemoryBus()
    monkeypatch.delitem(sys.modules, "services.runtime.open_telemetry", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    async with traced(bus, ENDPOINT, process="test") as seen:
        assert seen is bus
