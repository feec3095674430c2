"""Refused entries of ranges, as lines of the log."""

from __future__ import annotations

import logging

import pytest

from events.messages import Failure
from events.worker.refusals import AGAIN_SECONDS, Refusals


def test_a_range_is_told_once_a_minute_with_what_came_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    """Cut, and another range beside it."""
    now = 0.0
    refusals = Refusals(lambda: now)
    failure = Failure(code="not_allowed", message="m" * 10_000)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            refusals.note("cyroid:range:1:outbox", failure)
        refusals.note("cyroid:range:2:outbox", failure)
        now = AGAIN_SECONDS
        refusals.note("cyroid:range:1:outbox", failure)
    first, other, again = caplog.messages
    assert "range:1" in first
    assert "range:2" in other
    assert again.endswith("99 more since the last such line")
    assert max(map(len, caplog.messages)) < 1000
