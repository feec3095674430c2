"""deploy.demo: how it ends when something goes wrong, played without any server."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest

from deploy.demo import __main__ as demo
from deploy.demo.stage import Stage, StoryFailed
from deploy.lab import Lab


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """Runs the demonstration with one chapter, in whose laboratory a server has written a log."""

    def start(lab: Lab, _: object) -> Any:
        (lab.folder / "services").mkdir()
        (lab.folder / "services/log").write_text("what the services said\n")
        return SimpleNamespace(logbook=nullcontext)

    def run(chapter: Callable[[Stage], object]) -> tuple[int, Path]:
        folder = tmp_path / "demo"
        monkeypatch.setattr(demo, "start", start)
        monkeypatch.setattr(demo, "CHAPTERS", (chapter,))
        monkeypatch.setattr(sys, "argv", ["demo", "--exit", "--folder", str(folder)])
        return demo.main(), folder

    return run


Play = Callable[..., tuple[int, Path]]


def fails(problem: BaseException) -> Callable[[Stage], object]:
    def chapter(stage: Stage) -> None:
        (stage.folder / "web").mkdir(parents=True)
        raise problem

    return chapter


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (StoryFailed("range-1 has other layers"), "✗ range-1 has other layers"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/somewhere/archive.bin"),
            "✗ the machine cannot go on: /somewhere/archive.bin: No space left on device",
        ),
        (URLError("connection refused"), "✗ <urlopen error connection refused>"),
        (subprocess.TimeoutExpired("docker", 5), "✗ Command 'docker' timed out after 5 seconds"),
    ],
)
def test_whatever_goes_wrong_is_one_line_and_the_logs_are_kept(
    play: Play, capsys: pytest.CaptureFixture[str], problem: Exception, told: str
) -> None:
    """No traceback; where the logs are; nothing else of it stays; exit status 1."""
    status, folder = play(fails(problem))
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert status == 1
    assert told in said
    assert f"the logs are kept in {folder / 'logs'}" in said
    assert "The demonstration failed." in said
    assert [str(path.relative_to(folder)) for path in folder.rglob("*")] == ["logs", "logs/services.log"]


def test_a_mistake_of_its_own_shows_its_traceback_and_keeps_the_logs(play: Play, tmp_path: Path) -> None:
    """What nobody foresaw is reported whole, after cleaning up."""
    with pytest.raises(KeyError, match="surprise"):
        play(fails(KeyError("surprise")))
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["logs"]


def test_logs_that_cannot_be_kept_are_said_so(
    play: Play, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that is full, for instance; the first problem is told all the same."""

    def copy(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copy", copy)
    status, _ = play(fails(StoryFailed("range-1 has other layers")))
    said = capsys.readouterr().out
    assert status == 1
    assert "✗ range-1 has other layers" in said
    assert "✗ not all logs could be kept: the machine cannot go on: No space left on device" in said


def test_an_interruption_is_no_failure(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 130, no logs, nothing left."""
    status, folder = play(fails(KeyboardInterrupt()))
    assert status == 130
    assert "nothing is left running or mounted" in capsys.readouterr().out
    assert not folder.exists()


def test_it_ends_by_itself_when_asked_to(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    """With --exit: status 0 after the story, and nothing left."""
    status, folder = play(lambda stage: stage.folder.mkdir())
    assert status == 0
    assert "Every step did what it says." in capsys.readouterr().out
    assert not folder.exists()


def test_a_second_one_in_the_same_folder_leaves_the_first_alone(
    play: Play, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It says that another is open, and takes away neither its files nor its logs."""
    with Lab(tmp_path / "demo/lab"):
        (tmp_path / "demo/contexts").mkdir()
        status, folder = play(lambda stage: None)
        assert status == 1
        assert "another laboratory is open" in capsys.readouterr().out
        assert (folder / "contexts").exists()
