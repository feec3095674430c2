"""services.cli.output: progress on a terminal, and where nothing moves."""

from __future__ import annotations

import time

import pytest

from services.cli.output import progress
from tests.unit.deploy.terminal import terminal


def test_bars_on_a_terminal_end_with_what_became_of_the_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bar per name, with its phase and bytes; one that ended without a total does not run to and fro any more."""
    with terminal(monkeypatch, "stderr") as screen, progress() as shown:
        shown.show("pull web:1", "downloading", 500, 1000)
        shown.show("pull web:1", "done", 1000, 1000)
        shown.show("load late:1", "done")
        shown.show("push none:1", "failed")
    said = {
        name: line for line in screen.shown().splitlines() for name in ("web:1", "late:1", "none:1") if name in line
    }
    assert "done" in said["web:1"]
    assert "1.0/1.0 kB" in said["web:1"]
    assert "done" in said["late:1"]
    assert "failed" in said["none:1"]
    still = [
        line for line in screen.raw.decode().splitlines() if "━" * 30 in line
    ]  # a running one changes colour in it
    assert ["late:1" in line for line in still[-2:]] == [True, False]
    assert "none:1" in still[-1]


def test_the_bars_go_when_the_command_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays on the terminal is the result alone."""
    with terminal(monkeypatch, "stderr") as screen, progress() as shown:
        shown.show("pull web:1", "downloading", 500, 1000)
    assert screen.raw.rstrip().endswith(b"\x1b[2K")


def test_off_a_terminal_the_first_line_of_each_name_comes_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then at most one in ten seconds for each: a log is told that something goes on, and not more."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress() as shown:
        for seconds in (0, 1, 9, 10, 11):
            now[0] = 100.0 + seconds
            shown.show("push web", "sending", 1000 * seconds, 20_000)
        shown.show("pull web", "downloading")
    assert capsys.readouterr().err.splitlines() == [
        "push web: sending",
        "push web: sending 10.0 kB of 20.0 kB",
        "pull web: downloading",
    ]
