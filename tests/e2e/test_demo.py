"""The demonstration itself: it tells its story to the end, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.lab import EngineServer
from deploy.lab.engine_server import engine_answers
from deploy.lab.laboratory import marked_processes
from deploy.lab.role_server import ROOT
from deploy.lab.server import plain_environment

pytestmark = pytest.mark.real


def begin(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The demonstration, as `make demo` starts it, in a folder of its own."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "deploy.demo", "--folder", str(folder), *arguments],
        cwd=ROOT,
        env=plain_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def nothing_is_left(folder: Path) -> bool:
    """No process of its, no mount below its folder, no folder."""
    mounted = f" {folder}/" in Path("/proc/self/mountinfo").read_text()
    return not folder.exists() and not marked_processes(folder / "lab") and not mounted


def test_every_step_does_what_it_says(tmp_path: Path) -> None:
    """`make demo EXIT=1` ends by itself with status 0, all paths taken, and nothing left."""
    folder = tmp_path / "demo"
    with begin(folder, "--exit") as demo:
        said, _ = demo.communicate(timeout=280)
    assert demo.returncode == 0, said
    assert "Every step did what it says." in said
    assert "✗" not in said
    assert all(path in said for path in ("pulled", "present", "loaded"))
    assert nothing_is_left(folder)


def test_ctrl_c_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    """Interrupted while images are on their way, it stops everything it started and says so with its status."""
    folder = tmp_path / "demo"
    with begin(folder) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "cyroid-images deploy range-2" in line:
                break
        os.killpg(demo.pid, signal.SIGINT)
        said = demo.stdout.read()
        assert demo.wait(60) == 130, said
    assert "nothing is left running or mounted" in said
    assert nothing_is_left(folder)


def test_an_engine_at_the_usual_address_is_noticed(host_engine_server: EngineServer, tmp_path: Path) -> None:
    """It is told from a socket that nobody listens on, and from none."""
    assert engine_answers(host_engine_server.socket)
    assert not engine_answers(tmp_path / "none.sock")
