"""Log lines about skipped keys."""

from __future__ import annotations

import pytest

from events.redis.skipped_streams import AGAIN_SECONDS, SkippedStreams


def test_each_key_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """With the reason; a hundred takes a second do not fill the log, and another key is told at once."""
    now = [0.0]
    skipped = SkippedStreams(clock=lambda: now[0])
    assert skipped.report([[b"a", b"WRONGTYPE"], [b"a", b"WRONGTYPE"], [b"b\xff", b"no JSON"]]) == 3
    assert len(caplog.records) == 2
    assert "skipped a in Redis" in caplog.records[0].getMessage()
    assert "WRONGTYPE" in caplog.records[0].getMessage()
    now[0] = AGAIN_SECONDS
    skipped.log("a", "WRONGTYPE")
    assert len(caplog.records) == 3


def test_what_is_remembered_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever makes ever new keys fills the log, not the memory."""
    skipped = SkippedStreams(clock=lambda: 0.0)
    for number in range(3000):
        skipped.log(str(number), "x")
    assert len(vars(skipped)["_told"]) <= 1000
    assert len(caplog.records) == 3000
