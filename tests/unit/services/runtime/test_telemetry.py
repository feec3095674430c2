"""Structured logs."""

import io
import logging
import subprocess
import sys

import orjson

from events.envelope import Envelope
from events.messages import PushRequested
from services.runtime import telemetry


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_with_their_context() -> None:
    """A line holds level, time, the logger's context and what was bound around it."""
    stream = io.StringIO()
    telemetry.set_up(stream=stream, log_format="json")
    log = telemetry.get_logger(role="deployer")
    envelope = Envelope(message=PushRequested(reference="a:1"), source="t", subject="a:1", correlation_id="c-1")
    with telemetry.about(envelope):
        log.info("pulled", sent_bytes=12)
    log.info("after")
    first, second = _lines(stream)
    assert first["event"] == "pulled"
    assert first["level"] == "info"
    assert first["role"] == "deployer"
    assert first["sent_bytes"] == 12
    assert first["correlation_id"] == "c-1"
    assert str(first["timestamp"]).endswith("Z")
    assert "correlation_id" not in second


def test_the_level_is_obeyed_and_libraries_are_heard() -> None:
    """Lines below the level are dropped; the standard library's loggers come out in the same form."""
    stream = io.StringIO()
    telemetry.set_up(stream=stream, log_format="json", level="warning")
    telemetry.get_logger().info("quiet")
    logging.getLogger("aiohttp.server").error("broken %s", "pipe")
    (line,) = _lines(stream)
    assert line["event"] == "broken pipe"
    assert line["level"] == "error"


def test_a_console_line_is_for_reading() -> None:
    """The console form is plain text without colour where there is no terminal."""
    stream = io.StringIO()
    telemetry.set_up(stream=stream, log_format="console")
    telemetry.get_logger().warning("disk is full", range="r1")
    assert "disk is full" in stream.getvalue()
    assert "range=r1" in stream.getvalue()
    assert "\x1b[" not in stream.getvalue()


def test_a_role_does_not_load_what_draws_for_people() -> None:
    """Rich takes 5 MB in each process; it can still be imported by those that draw."""
    program = (
        "import sys, services.bootstrap, services.runtime.runner, services.tar_server.role, services.cli.serve;"
        "assert 'rich' not in sys.modules; import rich.console"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_no_value_fills_the_log() -> None:
    """What is bound, what is logged and what a library says are cut; what happened is still told."""
    stream = io.StringIO()
    telemetry.set_up(stream=stream, log_format="json")
    long = "x" * 1_000_000
    with telemetry.bind(correlation_id=long):
        telemetry.get_logger().info("failed", why=long)
    logging.getLogger("aiohttp.server").error("broken %s", long)
    assert len(stream.getvalue()) < 10_000
    first, second = _lines(stream)
    assert str(first["why"]).endswith("(1000000 characters)")
    assert first["event"] == "failed"
    assert str(second["event"]).startswith("broken xxx")
