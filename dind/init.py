"""The first process of a range: keeps the engine and the agent alive, buries orphans, stops both in good order.

`init.py --run engine dockerd … --run agent cyroid-images serve agent` starts each `--run NAME COMMAND…`. One that ends
is started again: after a second at first, after longer when it keeps ending at once. The engine's containers survive
its restart (`live-restore`), so neither part takes the other or the range's machines with it. On SIGTERM the last
started part is stopped first: the agent hands its work back while the engine still answers.

`init.py --status` ends with 0 when every part is up. Standard library only: this runs before anything else can.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

STATUS = Path("/run/range/status.json")
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
#: A part that lived this long is well: the next restart is a quick one again.
WELL_AFTER_SECONDS = 60.0
#: Agent and engine together stay below the container's stop grace.
STOP_SECONDS = 20.0
WAKE = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)


@dataclass
class Part:
    """One child. `pid` is 0 while it waits to be started again at `start_at` (monotonic seconds)."""

    name: str
    command: list[str]
    pid: int = 0
    start_at: float = 0.0
    started_at: float = 0.0
    pause_seconds: float = FIRST_PAUSE_SECONDS
    starts: int = 0

    def start(self, now: float) -> None:
        self.starts += 1
        self.started_at = now
        try:
            # A process group of its own: a Ctrl-C on the terminal reaches the init alone, which knows the order.
            self.pid = os.posix_spawnp(self.command[0], self.command, os.environ, setpgroup=0, setsigmask=())
        except OSError as problem:
            say(f"{self.name} cannot be started: {problem}")
            self.ended(now)
        else:
            say(f"{self.name} is up, process {self.pid}")

    def ended(self, now: float) -> None:
        """Note the end and when to start again: at once quickly, then slower and slower."""
        if now - self.started_at >= WELL_AFTER_SECONDS:
            self.pause_seconds = FIRST_PAUSE_SECONDS
        self.pid = 0
        self.start_at = now + self.pause_seconds
        self.pause_seconds = min(self.pause_seconds * 2, LONGEST_PAUSE_SECONDS)


@dataclass
class Init:
    """Supervises `parts` until SIGTERM or SIGINT. `status` is where it says how they are."""

    parts: list[Part]
    status: Path = STATUS
    _stopping: bool = field(default=False)

    def run(self) -> int:
        """Returns the exit status: 0 after an orderly stop, 1 if a part had to be killed."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WAKE)
        while not self._stopping:
            now = time.monotonic()
            for part in self.parts:
                if not part.pid and part.start_at <= now:
                    part.start(now)
            self._write_status()
            self._wait(min((part.start_at for part in self.parts if not part.pid), default=now + 3600.0))
        clean = [self._stop(part) for part in reversed(self.parts)]
        self.status.unlink(missing_ok=True)
        return 0 if all(clean) else 1

    def _wait(self, until: float) -> None:
        """Until a child ends, somebody asks to stop, or `until`; ends are noted, orphans' too."""
        received = signal.sigtimedwait(WAKE, max(0.0, until - time.monotonic()))
        if received is not None and received.si_signo != signal.SIGCHLD:
            self._stopping = True
        self._bury()

    def _bury(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for part in self.parts:
                if part.pid == pid:
                    part.ended(time.monotonic())
                    if not self._stopping:
                        code = os.waitstatus_to_exitcode(status)
                        pause = part.start_at - time.monotonic()
                        say(f"{part.name} ended with status {code}; starts again in {pause:.0f} s")

    def _stop(self, part: Part) -> bool:
        """Ask, wait, then insist. True if asking was enough."""
        deadline = time.monotonic() + STOP_SECONDS
        if part.pid:
            say(f"stopping {part.name}")
            os.kill(part.pid, signal.SIGTERM)
        while part.pid and time.monotonic() < deadline:
            self._wait(deadline)
        if not part.pid:
            return True
        say(f"{part.name} did not stop within {STOP_SECONDS:.0f} s: killed")
        os.killpg(part.pid, signal.SIGKILL)
        while part.pid:
            self._wait(time.monotonic() + 1.0)
        return False

    def _write_status(self) -> None:
        self.status.parent.mkdir(parents=True, exist_ok=True)
        new = self.status.with_suffix(".new")
        new.write_text(json.dumps({part.name: {"pid": part.pid, "starts": part.starts} for part in self.parts}))
        new.replace(self.status)


def say(text: str) -> None:
    """One JSON line, as everything else in the container's log."""
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "role": "init", "event": text}
    print(json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201 - the log is this process's standard error


def parse(arguments: Sequence[str]) -> list[Part]:
    """`--run NAME COMMAND… --run NAME COMMAND…` → parts, in order. Raises ValueError."""
    parts: list[Part] = []
    words = list(arguments)
    while words:
        if words.pop(0) != "--run" or len(words) < 2:
            raise ValueError("usage: init.py --run NAME COMMAND… [--run NAME COMMAND…]")
        end = words.index("--run") if "--run" in words else len(words)
        name, *command = words[:end]
        if not command:
            raise ValueError(f"--run {name} has no command")
        parts.append(Part(name, command))
        del words[:end]
    if not parts:
        raise ValueError("nothing to run")
    return parts


def unhealthy(status: Path) -> list[str]:
    """The names of the parts that are not up; "init" if there is no word of any."""
    try:
        parts = json.loads(status.read_text())
    except (OSError, ValueError):
        return ["init"]
    return [name for name, part in parts.items() if not (part["pid"] and Path(f"/proc/{part['pid']}").exists())]


def main(arguments: Sequence[str]) -> int:
    if list(arguments) == ["--status"]:
        down = unhealthy(STATUS)
        if down:
            sys.stderr.write(f"down: {', '.join(down)}\n")
        return 1 if down else 0
    return Init(parse(arguments)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
