"""The demonstration: it runs to its end, and leaves nothing behind however it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from deploy.demo import start as start_module
from deploy.demo.show import Show
from deploy.machine.commands import MachineError
from tests.laboratory import ROOT, EngineServer, Lab, engine_answers, free_port, marked_processes, plain_environment

pytestmark = pytest.mark.real

WEB, TOOLS, NOTES, REPORT, LATE = (
    f"docker.io/training/{name}" for name in ("web:1.0", "tools:2.3", "web:with-notes", "report:1", "late:1")
)
SAID_BY = {
    "image.built.v1": "build",
    "image.imported.v1": "import",
    "image.promoted.v1": "promote",
    "image.pushed.v1": "registry-pusher",
}


@contextmanager
def begin(folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The demonstration, as `make demo` starts it, in a folder of its own; killed when it takes minutes."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "deploy.demo", "--folder", str(folder)],
        cwd=ROOT,
        env={**plain_environment(), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as demo:
        watchdog = threading.Timer(280, demo.kill)
        watchdog.start()
        try:
            yield demo
        finally:
            watchdog.cancel()


def until(demo: subprocess.Popen[str], text: str) -> str:
    """What it says up to the line that has `text` in it, or up to its end."""
    assert demo.stdout is not None
    said = []
    for line in demo.stdout:
        said.append(line)
        if text in line:
            break
    return "".join(said)


def left(folder: Path) -> dict[str, object]:
    """What is there of it: processes, mounts below its folder, the folder."""
    mounted = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {folder}/" in line]
    found = {"processes": marked_processes(folder / "lab"), "mounts": mounted, "folder": folder.exists()}
    return {name: value for name, value in found.items() if value}


@dataclass(kw_only=True)
class Played:
    """One whole run: what it said, what was found at its addresses meanwhile, and what was left after Ctrl-C."""

    said: str
    status: int
    answers: dict[str, str] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    pasted: dict[str, str] = field(default_factory=dict)
    left: dict[str, object] = field(default_factory=dict)
    downloads: bool = False


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, base_image_tar: Path) -> Played:
    """A run on a machine where everything is installed, without a network: apt and the proxy lead nowhere."""
    place = tmp_path_factory.mktemp("demo")
    folder, cache, apt, home, scratch = (place / name for name in ("demo", "cache", "bin", "home", "tmp"))
    for made in (cache, apt, home, scratch):
        made.mkdir()
    shutil.copy(base_image_tar, cache / "base-image.tar")
    (apt / "apt-get").write_text(f"#!/bin/sh\ntouch {place}/asked\nexit 100\n")
    (apt / "apt-get").chmod(0o755)
    nowhere = f"http://127.0.0.1:{free_port()}"
    environment = {
        **{"http_proxy": nowhere, "HTTP_PROXY": nowhere, "https_proxy": nowhere, "no_proxy": "", "NO_PROXY": ""},
        **{"HOME": str(home), "TMPDIR": str(scratch), "IMAGES_LAB_CACHE": str(cache)},
        "PATH": f"{apt}:{os.environ['PATH']}",
    }
    with begin(folder, **environment) as demo:
        said = until(demo, "Ctrl-C ends it")
        answers = {name: answer(where) for name, where in addresses(said)}
        commands = {command: shell(command) for command in re.findall(r"\$ (redis-cli .+)", said)}
        pasted = {
            command: paste(said, command) for command in re.findall(r"\$ (\S*cyroid-images (?:doctor|verify).*)", said)
        }
        os.killpg(demo.pid, signal.SIGINT)
        said += until(demo, "the end")
        status = demo.wait(60)
    found = left(folder)
    files = [str(path) for path in (*home.iterdir(), *scratch.iterdir(), *cache.iterdir())]
    if files != [str(cache / "base-image.tar")]:
        found["files"] = files
    asked = (place / "asked").exists()
    return Played(
        said=said, status=status, answers=answers, commands=commands, pasted=pasted, left=found, downloads=asked
    )


def addresses(said: str) -> list[tuple[str, str]]:
    """The table of addresses."""
    _, _, after = said.partition("It stays up.")
    return re.findall(r"^ *(HTTP API|registry|host engine|range-\d) {2,}(\S.*?) *$", after, re.MULTILINE)


def answer(where: str) -> str:
    """What is at an address, as the table says it: a URL or a command."""
    if not where.startswith("http"):
        return shell(where)
    url = urlsplit(where)
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    try:
        connection.request("GET", url.path)
        said = connection.getresponse()
        return f"{said.status} {said.read().decode()}"
    finally:
        connection.close()


def paste(said: str, command: str) -> str:
    """What a command prints in a terminal into which the lines were pasted that the demonstration ends with."""
    _, _, after = said.partition("paste this there:")
    lines = [line.strip() for line in after.splitlines() if line.strip().startswith(("cd ", "export "))]
    clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    shell = ["sh", "-c", "\n".join([*lines, command])]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False, cwd="/", env=clean)
    return f"exit status {done.returncode}: {done.stdout}{done.stderr}"


def shell(command: str) -> str:
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=30, check=False)
    return done.stdout if done.returncode == 0 else f"exit status {done.returncode}: {done.stderr}"


def test_every_step_does_what_it_says(played: Played) -> None:
    """The story goes to its end with all paths taken, and Ctrl-C afterwards is no failure."""
    assert played.status == 0, played.said
    assert "Every step did what it says." in played.said
    assert "✗" not in played.said
    assert all(path in played.said for path in ("pulled", "present", "loaded"))


def test_ctrl_c_at_the_end_leaves_nothing_but_the_cache(played: Played) -> None:
    """No process, no mount, no folder, no file in the home or the temporary folder."""
    assert "nothing is left running or mounted" in played.said
    assert played.left == {}


def test_its_environment_lets_another_terminal_use_the_command_line(played: Played) -> None:
    """Pasted into a shell that has nothing else, it makes the commands that are offered work."""
    doctor, verify = played.pasted.values()
    assert "tracker" in doctor
    assert "away" not in doctor
    assert "unknown setting" not in doctor
    assert verify.startswith("exit status 0: "), verify


def test_what_is_installed_is_used_again(played: Played) -> None:
    """With the cache filled nothing is downloaded, and a proxy for the outside is in nobody's way."""
    assert played.status == 0, played.said
    assert not played.downloads


def test_its_addresses_answer(played: Played) -> None:
    """API, registry and all three engines, each with what the story brought there."""
    assert list(played.answers) == ["HTTP API", "registry", "host engine", "range-1", "range-2"]
    assert played.answers["HTTP API"].startswith("200 {")
    assert played.answers["registry"].startswith("200 {")
    assert "training/late" in played.answers["registry"]
    for engine in ("host engine", "range-1", "range-2"):
        assert re.search(r"training/late +1 ", played.answers[engine]), engine


def test_its_commands_work(played: Played) -> None:
    """The three that it offers show the images' log, the last deployments, and what a range said."""
    images, deployments, outbox = played.commands.values()
    assert "image.promoted.v1" in images
    assert "deployment.succeeded.v1" in deployments
    assert "image.ready.v1" in outbox


def entries(said: str) -> list[dict[str, str]]:
    """Entries as redis-cli prints them into a pipe: the id, then each field's name and its value, a line each."""
    found: list[dict[str, str]] = []
    lines = iter(said.splitlines())
    for line in lines:
        if re.fullmatch(r"\d+-\d+", line):
            found.append({})
        elif line:
            found[-1][line] = next(lines)
    return found


def test_the_stream_of_images_reads_like_a_log_book(played: Played) -> None:
    """`redis-cli XRANGE` alone tells who did what to which image and when, in order, in plain fields."""
    everything = entries(next(said for command, said in played.commands.items() if " XRANGE " in command))
    book = [one for one in everything if one["type"] in SAID_BY]
    assert [(one["type"], one["subject"]) for one in book if one["type"] != "image.pushed.v1"] == [
        ("image.built.v1", WEB),
        ("image.imported.v1", TOOLS),
        ("image.promoted.v1", NOTES),
        ("image.built.v1", WEB),
        ("image.built.v1", REPORT),
        ("image.built.v1", LATE),
    ]
    for image, times in ((WEB, 2), (TOOLS, 1), (NOTES, 1), (REPORT, 1), (LATE, 1)):
        own = [one for one in book if one["subject"] == image]
        assert [one["type"] == "image.pushed.v1" for one in own] == [False, True] * times
        moments = [datetime.fromisoformat(one["time"]) for one in own]
        assert moments == sorted(moments)
        assert all(moment.tzinfo for moment in moments)
        for before, after in zip(own[::2], own[1::2], strict=True):
            assert json.loads(before["data"])["image_id"] == json.loads(after["data"])["image_id"]
    assert {one["type"]: one["source"].partition("@")[0] for one in book} == SAID_BY
    assert all(json.loads(one["data"])["reference"] == one["subject"] for one in book)


def test_ctrl_c_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    """Interrupted while images are on their way, it stops everything it started and says so with its status."""
    folder = tmp_path / "demo"
    with begin(folder) as demo:
        until(demo, "cyroid-images deploy range-2")
        os.killpg(demo.pid, signal.SIGINT)
        said = until(demo, "the end")
        assert demo.wait(60) == 130, said
    assert "nothing is left running or mounted" in said
    assert left(folder) == {}


class NoServers:
    """A laboratory in which nothing starts."""

    def redis(self) -> Any:
        raise MachineError("nothing starts here")


def test_an_engine_at_the_usual_address_is_left_alone(
    host_engine_server: EngineServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is told from a socket that nobody listens on, and from none; the line says that others are used."""
    assert engine_answers(host_engine_server.socket)
    assert not engine_answers(tmp_path / "none.sock")
    for usual, noticed in ((host_engine_server.socket, True), (tmp_path / "none.sock", False)):
        monkeypatch.setattr(start_module, "USUAL_ENGINE", usual)
        with pytest.raises(MachineError, match="nothing starts here"):
            start_module.start(cast(Lab, NoServers()), Show())
        said = capsys.readouterr().out
        assert (f"An engine answers at {usual}: it is left alone, the engines here are others." in said) == noticed
