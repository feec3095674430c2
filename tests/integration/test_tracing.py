"""One deployment is one trace over all roles: real processes, Redis, registry and engines, and a collector of spans."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from deploy.machine.polling import poll
from tests.images import tar_of
from tests.laboratory import EngineServer, Lab, RedisServer, RegistryServer, System

pytestmark = pytest.mark.real

RANGE = "traced-1"


class Collector:
    """An OTLP/HTTP collector: keeps every span, with the `service.name` of the process that sent it."""

    def __init__(self) -> None:
        self.spans: dict[bytes, Span] = {}
        self.services: dict[bytes, str] = {}
        kept = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kept.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for group in request.resource_spans:
            told = {one.key: one.value.string_value for one in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.spans[span.span_id] = span
                    self.services[span.span_id] = told["service.instance.id"]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _told(span: Span) -> dict[str, str]:
    return {one.key: one.value.string_value for one in span.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on a port of its own."""
    running = Collector()
    yield running
    running.close()


@pytest.fixture
def system(
    lab: Lab,
    redis_server: RedisServer,
    registry_server: RegistryServer,
    host_engine_server: EngineServer,
    range_engine_servers: tuple[EngineServer, EngineServer],
) -> System:
    """Servers for one range; nothing of the project runs yet."""
    return System(
        lab=lab,
        redis=redis_server,
        registry=registry_server,
        host=host_engine_server,
        ranges={RANGE: range_engine_servers[0]},
        prefix="traced",
    )


def test_one_deployment_is_one_trace(
    system: System, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch, unique: str
) -> None:
    """From the request through push and pull to the outcome: each span is the child of what caused it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    image, tar = f"traced-{unique}:1", tmp_path / "layer.tar"
    tar.write_bytes(tar_of({"traced": unique.encode()}))  # content that no other test has brought anywhere
    system.host.docker("import", str(tar), image)
    servers = [
        system.services("registry-pusher", name="traced-pusher"),
        system.services("deployer", "tracker", name="traced-deployer"),
        system.agent(RANGE),
    ]
    try:
        done = system.cli("deploy", RANGE, image)
        assert done.status == 0, done.talk
        last = "process deployment.succeeded"
        assert poll(lambda: last in {span.name for span in collector.spans.values()}, seconds=60, every=0.2)
    finally:
        for server in servers:
            server.stop()

    (root,) = [span for span in collector.spans.values() if span.name == "send deployment.requested"]
    assert root.parent_span_id == b""
    trace = {ident: span for ident, span in collector.spans.items() if span.trace_id == root.trace_id}
    assert [span.name for span in trace.values() if span.parent_span_id not in trace] == [root.name]
    assert len({collector.services[ident] for ident in trace}) == 4

    def way(span: Span) -> list[str]:
        names = [span.name]
        while span.parent_span_id:
            span = trace[span.parent_span_id]
            names.append(span.name)
        return names[::-1]

    (ended,) = [span for span in trace.values() if span.name == "process deployment.succeeded"]
    (pulled,) = [span for span in trace.values() if span.name == "process image.pull_requested"]
    assert way(ended) == [
        *way(pulled),
        "send image.ready",
        "process image.ready",
        "send deployment.succeeded",
        "process deployment.succeeded",
    ]
    pushed = ["send image.push_requested", "process image.push_requested", "send image.pushed", "process image.pushed"]
    steps = way(pulled)
    assert steps[:2] == ["send deployment.requested", "process deployment.requested"]
    assert [step for step in steps if step in pushed] == pushed
    assert steps[-1] == "process image.pull_requested"
    told = _told(pulled)
    assert told["cyroid.outcome"] == "handled"
    assert told["cyroid.image"].endswith(f"/{image}")
    assert told["messaging.destination.name"] == system.streams.inbox(RANGE)
    assert _told(ended)["cyroid.range"] == RANGE
    assert len({_told(span).get("cyroid.deployment") for span in (ended, pulled)}) == 1
