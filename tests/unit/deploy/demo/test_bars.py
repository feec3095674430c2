"""deploy.demo.bars: a bar for each transfer, which says at its end how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast

import pytest

from deploy.demo.bars import transfers
from deploy.demo.show import Show
from deploy.lab.system import System
from events.envelope import Envelope
from events.messages import TransferProgress
from events.streams import Streams
from tests.unit.deploy.terminal import terminal

Phase = Literal["downloading", "extracting", "done", "failed"]


def step(phase: Phase, done_bytes: int, *, kind: Literal["pull", "load"] = "pull", total_bytes: int = 100) -> Envelope:
    message = TransferProgress(
        transfer_id="d1.0.1",
        reference="docker.io/library/web:1",
        kind=kind,
        phase=phase,
        range_id="range-1",
        done_bytes=done_bytes,
        total_bytes=total_bytes,
    )
    return Envelope(message=message, source="agent@range-1", subject=message.reference)


@dataclass
class Told:
    """A log book and the system it belongs to, in which these things were said."""

    said: list[Envelope]
    streams: Streams = field(default_factory=Streams)
    ranges: dict[str, Any] = field(default_factory=lambda: {"range-1": None})

    def logbook(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def mark(self, *streams: str) -> dict[str, str]:
        return dict.fromkeys(streams, "0-0")

    def follow(self, mark: dict[str, str]) -> Iterator[Envelope]:
        said, self.said = self.said, []
        yield from said


def shown_at_the_end(monkeypatch: pytest.MonkeyPatch, *said: Envelope) -> str:
    """The last state of the bar."""
    with terminal(monkeypatch, "stdout") as screen, transfers(Show(), cast(System, Told(list(said)))):
        pass
    bars = [line for line in screen.shown().splitlines() if "library" in line or "web:1" in line]
    assert bars
    return bars[-1]


def test_a_tar_that_was_sent_is_not_done_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its last byte sent the engine still unpacks, and the bar says so."""
    bar = shown_at_the_end(monkeypatch, step("downloading", 50, kind="load"), step("extracting", 100, kind="load"))
    assert bar.split()[:4] == ["web:1", "→", "range-1", "extracting"]


def test_a_transfer_is_done_when_the_agent_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of earlier progress that comes later does not take it back."""
    bar = shown_at_the_end(monkeypatch, step("done", 100), step("extracting", 60))
    assert bar.split()[:4] == ["web:1", "→", "range-1", "done"]
    assert bar.endswith("100 B of 100 B")


@pytest.mark.parametrize("total_bytes", [0, 100])
def test_a_failed_transfer_is_said_to_have_failed(monkeypatch: pytest.MonkeyPatch, total_bytes: int) -> None:
    """Its bar ends, as what it is."""
    bar = shown_at_the_end(monkeypatch, step("failed", 0, total_bytes=total_bytes))
    assert bar.split()[:4] == ["web:1", "→", "range-1", "failed"]


def test_what_comes_another_way_goes_on_in_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull that failed and the tar that followed are one transfer."""
    bar = shown_at_the_end(monkeypatch, step("failed", 10), step("done", 100, kind="load"))
    assert bar.split()[:4] == ["web:1", "→", "range-1", "done"]


def test_without_a_terminal_a_failure_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Of what goes well within seconds nothing is said."""
    with transfers(Show(), cast(System, Told([step("downloading", 1), step("done", 100)]))):
        pass
    with transfers(Show(), cast(System, Told([step("failed", 10)]))):
        pass
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "web:1 → range-1: failed 10 B of 100 B",
    ]
