"""How progress looks where nothing moves."""

from __future__ import annotations

import time

import pytest

from services.cli import output


def test_off_a_terminal_the_first_line_of_each_name_comes_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then at most one in ten seconds for each: a log is told that something goes on, and not more."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with output.progress() as shown:
        for seconds in (0, 1, 9, 10, 11):
            now[0] = 100.0 + seconds
            shown.show("push web", "sending", 1000 * seconds, 20_000)
        shown.show("pull web", "downloading")
    assert capsys.readouterr().err.splitlines() == [
        "push web: sending",
        "push web: sending 10.0 kB of 20.0 kB",
        "pull web: downloading",
    ]
