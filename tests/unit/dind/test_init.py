"""The first process of a range, run as a real process with small children."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

INIT = Path(__file__).parents[3] / "dind/init.py"


@pytest.fixture(scope="module")
def init() -> ModuleType:
    """The script as a module."""
    sys.path.insert(0, str(INIT.parent))
    spec = importlib.util.spec_from_file_location("range_init", INIT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["range_init"] = module
    spec.loader.exec_module(module)
    sys.path.remove(str(INIT.parent))
    return module


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the init with the status file in a folder of the test's own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        program = (
            "import sys, runpy; sys.path.insert(0, {folder!r}); import init; from pathlib import Path;"
            "sys.exit(init.Init(init.parse(sys.argv[1:]), status=Path({status!r})).run())"
        ).format(folder=str(INIT.parent), status=str(tmp_path / "status.json"))
        process = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.DEVNULL, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()  # in good order: it takes its children along
        process.wait(timeout=30)


def parts(status: Path) -> dict[str, dict[str, int]]:
    try:
        found: dict[str, dict[str, int]] = json.loads(status.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_the_command_line_names_each_part(init: ModuleType) -> None:
    """`--run NAME COMMAND…` as often as wanted, in order."""
    found = init.parse(["--run", "engine", "dockerd", "--debug", "--run", "agent", "serve"])
    assert [(part.name, part.command) for part in found] == [("engine", ["dockerd", "--debug"]), ("agent", ["serve"])]


@pytest.mark.parametrize(
    "arguments", [[], ["dockerd"], ["--run"], ["--run", "engine"], ["--run", "a", "--run", "b", "c"]]
)
def test_a_command_line_without_sense_is_refused(arguments: list[str], init: ModuleType) -> None:
    """Nothing is started by halves."""
    with pytest.raises(ValueError, match=r"usage|no command|nothing"):
        init.parse(arguments)


def test_restarts_come_slower_while_a_part_keeps_ending(init: ModuleType) -> None:
    """The pause doubles up to a bound, and is short again after a long life."""
    part = init.Part("agent", ["x"])
    pauses = []
    for now in range(7):
        part.started_at = float(now)
        part.ended(float(now))
        pauses.append(part.start_at - now)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    part.started_at = 100.0
    part.ended(100.0 + init.WELL_AFTER_SECONDS)
    assert part.start_at == 100.0 + init.WELL_AFTER_SECONDS + 1.0


def test_a_part_that_dies_is_started_again_and_the_other_stays(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Killing one child brings up a new one under a new process id; its sibling does not notice."""
    status = tmp_path / "status.json"
    run("--run", "engine", "sleep", "60", "--run", "agent", "sleep", "60")
    until(lambda: all(part["pid"] for part in parts(status).values()) and len(parts(status)) == 2)
    before = parts(status)
    os.kill(int(before["agent"]["pid"]), signal.SIGKILL)
    until(lambda: parts(status)["agent"]["starts"] == 2 and parts(status)["agent"]["pid"] > 0)
    after = parts(status)
    assert after["agent"]["pid"] != before["agent"]["pid"]
    assert after["engine"] == before["engine"]


def test_a_stop_reaches_the_agent_before_the_engine(run: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """On SIGTERM the parts stop in the opposite order of their start, and the init ends with 0."""
    said = tmp_path / "said"
    body = "trap 'echo {name} >> {said}; exit 0' TERM; echo up-{name} >> {said}; while :; do sleep 0.05; done"
    scripts = {name: body.format(name=name, said=said) for name in ("engine", "agent")}
    process = run(
        "--run", "engine", "sh", "-c", scripts["engine"], "--run", "agent", "sh", "-c", scripts["agent"]
    )  # fmt: skip
    until(lambda: said.exists() and len(said.read_text().split()) == 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=15) == 0
    assert said.read_text().split()[2:] == ["agent", "engine"]
    assert not (tmp_path / "status.json").exists()


def test_the_status_names_what_is_down(init: ModuleType, tmp_path: Path) -> None:
    """No word from the init, a part that waits, and a process that is gone all count as down."""
    status = tmp_path / "status.json"
    assert init.unhealthy(status) == ["init"]
    gone = subprocess.Popen(["true"])
    gone.wait(timeout=10)
    status.write_text(json.dumps({"engine": {"pid": 1}, "agent": {"pid": 0}, "other": {"pid": gone.pid}}))
    assert init.unhealthy(status) == ["agent", "other"]
