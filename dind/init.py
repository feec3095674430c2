"""The first process of a range: supervises containerd, the engine and the agent, reaps orphaned processes, stops all in
order.

`init.py --run engine dockerd … --run agent cyroid-images serve agent` starts each `--run NAME COMMAND…`. One that ends
is started again: after a second at first, after longer when it keeps ending at once. The engine's containers survive
its restart (`live-restore`), so neither part takes the other or the range's machines with it. On SIGTERM the last
started part is stopped first: the agent hands its work back while the engine still answers.

`--layers SHOWN --data-root ROOT --control SOCKET --clients SOCKETS` is for mounted layers (docs/mounted-layers.md): the
engine starts once what its layers stand on is mounted; and at the agent's word it is stopped for a moment, so that
layers become known to it (`layer_placer.py`). Before its first start it is given what the range is to have
(`seeds.py`), on containerd's store by the command line `--seeder`.

`init.py --status` ends with 0 when every part is up. Standard library only: this runs before anything else can.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import layer_placer
import seeds

STATUS = Path("/run/range/status.json")
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
#: A part that lived this long is well: the next restart is a quick one again.
WELL_AFTER_SECONDS = 60.0
ASK_AGAIN_SECONDS = 0.1
#: Agent and engine together stay below the container's stop grace.
STOP_SECONDS = 20.0
WAKE = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)


@dataclass
class Part:
    """One child. `pid` is 0 while it waits to be started again at `start_at` (monotonic seconds).

    `may_start` is asked before each start, and again a moment later if the answer is no.
    """

    name: str
    command: list[str]
    pid: int = 0
    start_at: float = 0.0
    started_at: float = 0.0
    pause_seconds: float = FIRST_PAUSE_SECONDS
    starts: int = 0
    may_start: Callable[[float], bool] = field(default=lambda _now: True)
    asks: bool = False

    def start(self, now: float) -> None:
        self.asks = not self.may_start(now)
        if self.asks:
            self.start_at = now + ASK_AGAIN_SECONDS
            return
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
    """Supervises `parts` until SIGTERM or SIGINT. `status` is where it says how they are; `placer` has the engine
    stopped and started again at the agent's word.
    """

    parts: list[Part]
    status: Path = STATUS
    placer: layer_placer.LayerPlacer | None = None
    _stopping: bool = field(default=False)
    _woken: socket.socket = field(init=False)

    def run(self) -> int:
        """Returns the exit status: 0 after an orderly stop, 1 if a part had to be killed."""
        self._woken, wake = socket.socketpair()
        for end in (self._woken, wake):
            end.setblocking(False)
        for number in WAKE:
            signal.signal(number, self._note)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        while not self._stopping:
            now = time.monotonic()
            for part in self.parts:
                if not part.pid and part.start_at <= now:
                    part.start(now)
            self._write_status()
            self._wait(min((part.start_at for part in self.parts if not part.pid), default=now + 3600.0))
            self._place()
        clean = [self._stop(part) for part in reversed(self.parts)]
        self.status.unlink(missing_ok=True)
        return 0 if all(clean) else 1

    def _note(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._stopping = True

    def _wait(self, until: float) -> None:
        """Until a child ends, somebody asks for something, or `until`; ends are noted, orphans' too."""
        self._sleep(until, *([self.placer.listener] if self.placer else []))

    def _place(self) -> None:
        if self.placer is not None and not self._stopping:
            self.placer.serve(self._engine, self._restart)

    @property
    def _engine(self) -> Part:
        return next(part for part in self.parts if part.name == "engine")

    def _restart(self, between: Callable[[], None]) -> None:
        """Stop the engine, do something, start it again, whatever came of it."""
        engine = self._engine
        self._stop(engine)
        try:
            between()
        finally:
            engine.start_at, engine.pause_seconds = time.monotonic(), FIRST_PAUSE_SECONDS  # it did not fail
            if not self._stopping:
                engine.start(engine.start_at)
            self._write_status()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for part in self.parts:
                if part.asks:
                    part.start_at = time.monotonic()  # it may be this that it waits for
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
            self._sleep(deadline)
        if not part.pid:
            return True
        say(f"{part.name} did not stop within {STOP_SECONDS:.0f} s: killed")
        os.killpg(part.pid, signal.SIGKILL)
        while part.pid:
            self._sleep(time.monotonic() + 1.0)
        return False

    def _sleep(self, until: float, *others: socket.socket) -> None:
        select.select([self._woken, *others], [], [], max(0.0, until - time.monotonic()))
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        self._reap()

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
            raise ValueError("usage: init.py [--layers SHOWN …] --run NAME COMMAND… [--run NAME COMMAND…]")
        end = words.index("--run") if "--run" in words else len(words)
        name, *command = words[:end]
        if not command:
            raise ValueError(f"--run {name} has no command")
        parts.append(Part(name, command))
        del words[:end]
    if not parts:
        raise ValueError("nothing to run")
    return parts


def options(arguments: Sequence[str]) -> tuple[dict[str, str], Sequence[str]]:
    """What stands before the first `--run`, as pairs; and the rest."""
    end = list(arguments).index("--run") if "--run" in arguments else len(arguments)
    return dict(zip(arguments[:end:2], arguments[1:end:2], strict=True)), arguments[end:]


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
    given, rest = options(arguments)
    init = Init(parse(rest))
    if "--layers" in given:
        shown, root = Path(given["--layers"]), Path(given["--data-root"])
        init.placer = layer_placer.LayerPlacer(
            shown=shown,
            root=root,
            control=Path(given["--control"]),
            sockets=given["--clients"].split(","),
            seeding=seeds.Seeding(shown=shown, root=root, program=shlex.split(given.get("--seeder", "")), say=say),
        )
        init.status = init.placer.control.with_name(STATUS.name)
        next(part for part in init.parts if part.name == "engine").may_start = init.placer.may_start
    return init.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
