"""`python -m deploy.demo [--exit] [--folder FOLDER]`: see `deploy.demo.story` for what it shows.

Exit status: 0 every step did what it says (with --exit), or the end was asked for; 1 a step did not; 130 interrupted
before the story's end.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape

from deploy.demo.show import Show
from deploy.demo.stage import Stage, StoryFailed
from deploy.demo.start import start
from deploy.demo.story import CHAPTERS
from deploy.lab import Lab
from deploy.lab.role_server import ROOT
from deploy.lab.system import System
from deploy.machine.commands import MachineError

INTERRUPTED = 130
PROBLEMS = (StoryFailed, MachineError, OSError, subprocess.SubprocessError)
"""What can go wrong on a machine. Anything else is a mistake in the demonstration: its traceback is wanted, too."""


def main() -> int:
    """The command line of the demonstration."""
    arguments = _arguments()
    show = Show()
    show.title("Images on their way: host engine → registry → two ranges, and as tar when the registry is down")
    status = 1
    with _signals():
        try:
            with Lab(arguments.folder / "lab") as lab:
                status = _play(lab, show, arguments.folder, arguments.exit)
        except PROBLEMS as problem:
            status = 1
            show.failed(_words(problem))
        except KeyboardInterrupt:
            status = INTERRUPTED
    with contextlib.suppress(OSError):
        arguments.folder.rmdir()  # stays when logs were kept in it
    show.say(
        "\nStopped; nothing is left running or mounted." if status != 1 else "\n[bold red]The demonstration failed.[/]"
    )
    return status


def _play(lab: Lab, show: Show, folder: Path, ends_itself: bool) -> int:
    """Run all steps. However they end, the laboratory is still open, so its logs can be kept."""
    for earlier in ("contexts", "logs"):
        shutil.rmtree(folder / earlier, ignore_errors=True)
    failed = True
    try:
        system = start(lab, show)
        with system.logbook() as book:
            stage = Stage(system=system, book=book, show=show, folder=folder / "contexts")
            for chapter in CHAPTERS:
                chapter(stage)
        failed = False
        show.say("\n[bold green]Every step did what it says.[/]")
        if not ends_itself:
            _stay(system, show)
    except PROBLEMS as problem:
        show.failed(_words(problem))
    except KeyboardInterrupt:
        failed = False
        raise
    finally:
        # From here on a further Ctrl-C must not stop the cleaning up.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        shutil.rmtree(folder / "contexts", ignore_errors=True)  # first: a full disk has room for the logs then
        if failed:
            _keep_logs(lab, show, folder)
    return int(failed)


def _stay(system: System, show: Show) -> None:
    """Show the addresses and the environment of the command line, and wait for Ctrl-C."""
    redis_cli = f"redis-cli -p {system.redis.port}"
    streams = system.streams
    show.say("\nIt stays up. The addresses:")
    rows = [
        ("page", f"{system.api_url}/"),
        ("HTTP API", f"{system.api_url}/api/v1/registry/stats"),
        ("registry", f"{system.registry.url}/v2/_catalog"),
        ("host engine", f"docker -H {system.host.url} images"),
        *((name, f"docker -H {engine.url} images") for name, engine in system.ranges.items()),
    ]
    for name, where in rows:  # no table: it would fold what is meant to be copied
        show.say(f"{name:<12} {escape(where)}")
    show.say("\nWorth trying in another terminal:")
    show.command(f"{redis_cli} XRANGE {streams.images} - +")
    show.command(f"{redis_cli} XREVRANGE {streams.deployments} + - COUNT 2")
    show.command(f"{redis_cli} XREVRANGE {streams.outbox(next(iter(system.ranges)))} + - COUNT 3")
    show.say("\nFor the command line in another terminal, paste this there:")
    show.say(f"cd {shlex.quote(str(ROOT))}")
    for variable, value in system.client_environment().items():
        show.say(escape(f"export {variable}={shlex.quote(value)}"))
    show.command(".venv/bin/cyroid-images doctor")
    show.command(".venv/bin/cyroid-images images ls")
    show.command(f".venv/bin/cyroid-images verify {next(iter(system.ranges))}")
    show.say("\nCtrl-C ends it and leaves nothing behind.")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    show.say("\nstopping")


def _keep_logs(lab: Lab, show: Show, folder: Path) -> None:
    kept = folder / "logs"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        for log in lab.folder.glob("*/log"):
            shutil.copy(log, kept / f"{log.parent.name}.log")
    except OSError as problem:
        show.failed(f"not all logs could be kept: {_words(problem)}")
    show.say(f"the logs are kept in {kept}")


def _words(problem: Exception) -> str:
    """One line for an error of the machine; the error's own text otherwise."""
    if isinstance(problem, OSError) and problem.strerror:
        on = f"{problem.filename}: " if problem.filename else ""
        return f"the machine cannot go on: {on}{problem.strerror}"
    return str(problem)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demonstration as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description="Shows an image's whole way.")
    parser.add_argument("--exit", action="store_true", help="end after the story, status 0 only if all of it held")
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="where everything lives meanwhile")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
