"""A server as a child process: started, checked until it answers, stopped, killed, paused.

The kernel itself ends a child when the thread that started it is gone (`setpriv --pdeathsig`, prctl(2)
PR_SET_PDEATHSIG), so a killed test run leaves no process behind. A child has a session of its own: Ctrl-C on a
terminal reaches the laboratory alone, which stops its servers in order.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path

from deploy.machine.commands import MachineError, need
from deploy.machine.polling import poll

MARK = "IMAGES_LAB"
"""Environment variable that every child carries, the laboratory's folder: tells our leftovers from other processes."""


def free_port() -> int:
    """A loopback port nobody listens on, below the range that outgoing connections take theirs from.

    So a server that is stopped for a while finds its port free when it comes back.
    """
    for port in random.sample(range(20000, 32000), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise MachineError("no free port between 20000 and 32000 on loopback")


def answers_ok(connection: http.client.HTTPConnection, path: str) -> bool:
    """Whether `GET path` on the connection is answered with 200. Closes the connection."""
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def plain_environment() -> dict[str, str]:
    """This process's environment without settings of the project, which would reach a child unasked."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CYROID_")}


class Server(ABC):
    """One child process and its folder. `folder/log` is its output, over all its starts."""

    start_seconds = 30.0
    stop_seconds = 20.0
    stops_first = False
    """Whether it leans on the others, so must end before them."""

    def __init__(self, name: str, folder: Path, mark: str) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / "log"
        self._mark = mark
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def command(self) -> list[str]:
        """The command line to run."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server is ready. Must not block for more than a second."""

    def prepare(self) -> None:
        """Called before each start. Does nothing here."""
        return

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's own process id. Raises MachineError when it does not run."""
        return self._child_pid()

    def _child_pid(self) -> int:
        if self._process is None or not self.running:
            raise MachineError(f"{self.name} does not run")
        return self._process.pid

    def _family(self) -> list[int]:
        """The process ids of this server."""
        return [self.pid]

    def start(self) -> None:
        """Start, and wait until it answers. Does nothing when it runs. Raises MachineError with the log's end."""
        if not self.running:
            self.launch()
            self.await_ready()

    def launch(self) -> None:
        """Start without waiting, for several at once; `await_ready` waits."""
        self.prepare()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [need("setpriv", "util-linux"), "--pdeathsig", "KILL", "--", *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.working_folder,
                env={**self.environment(), MARK: self._mark},
                start_new_session=True,
            )

    def environment(self) -> dict[str, str]:
        """The child's variables: this process's own, without settings of the project."""
        return plain_environment()

    @property
    def working_folder(self) -> Path:
        return self.folder

    def await_ready(self) -> None:
        """Wait until it answers. Raises MachineError with the log's end when it ends or takes too long."""
        poll(lambda: not self.running or self.answers(), seconds=self.start_seconds)
        if not self.running:
            raise MachineError(f"{self.name} ended at its start:\n{self.log_tail()}")
        if not self.answers():
            self.kill()
            raise MachineError(f"{self.name} did not answer within {self.start_seconds:.0f} s:\n{self.log_tail()}")

    def stop(self) -> None:
        """Ask it to end and wait; kill it when it does not. Does nothing when it does not run."""
        self.terminate()
        self.join()

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        if self.running:
            self.resume()
            with contextlib.suppress(ProcessLookupError, MachineError):
                os.kill(self.pid, signal.SIGTERM)

    def join(self) -> None:
        """Wait for the end that was asked for; kill what does not end."""
        if self._process is None:
            return
        try:
            self._process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, MachineError):
            os.kill(self.pid, signal.SIGKILL)
        self._paused = False
        try:
            self._process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(self.stop_seconds)

    def pause(self) -> None:
        """SIGSTOP: its sockets stay open, nothing answers."""
        for pid in self._family():
            os.kill(pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """SIGCONT. Does nothing when it was not paused."""
        if self._paused and self.running:
            for pid in reversed(self._family()):
                os.kill(pid, signal.SIGCONT)
        self._paused = False

    def log_tail(self, lines: int = 15) -> str:
        """The end of its log, indented."""
        if not self.log.exists():
            return "    (no log)"
        said = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(f"    {line}" for line in said) or "    (its log is empty)"
