"""The heartbeat of an agent, which a range writes itself."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.core.ranges.heartbeat import AgentHeartbeat, engine_of


def test_a_heartbeat_is_read_as_it_was_written() -> None:
    """With the engine's id, by which a recreated range is known."""
    beat = AgentHeartbeat.now(
        engine_id="e1", incarnation="i1", engine_version="28.5.2", at=datetime(2026, 1, 31, tzinfo=UTC)
    )
    assert AgentHeartbeat.read(beat.encode()) == beat
    assert engine_of(beat.encode()) == "e1"
    assert beat.at == "2026-01-31T00:00:00+00:00"


@pytest.mark.parametrize(
    "value", [None, b"", b"no json", b"[]", b'{"engine_id": 3}', b"\xff", b'{"at": "' + b"x" * 129]
)
def test_what_is_no_heartbeat_says_nothing(value: bytes | None) -> None:
    """A range may write anything there."""
    assert AgentHeartbeat.read(value) is None
    assert engine_of(value) is None


def test_an_older_agent_says_less() -> None:
    """Fields that it does not know are empty."""
    assert engine_of(b'{"engine_id": "e1"}') == "e1"
    assert engine_of(b"{}") is None
