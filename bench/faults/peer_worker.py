"""Worker processes of one library in one run."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from events.task_group import TaskGroup


@dataclass(frozen=True)
class Library:
    """Which program, under which interpreter; `finish` is the command that acknowledges, for the proxy."""

    name: str
    python: str
    program: str
    lease_seconds: float
    finish: str


@dataclass(eq=False)
class Process:
    """One worker. `struck`: its end is what was wanted."""

    name: str
    child: asyncio.subprocess.Process
    struck: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, number: signal.Signals) -> None:
        if self.child.returncode is None:
            self.child.send_signal(number)

    def strike(self, number: signal.Signals) -> None:
        self.struck = True
        self.send(number)


class Crew:
    """Starts workers, notes what they begin, and starts those again that end by themselves."""

    def __init__(self, library: Library, url: str, direct_url: str, lease_seconds: float, folder: Path) -> None:
        self._library = library
        self._url = url
        self._direct_url = direct_url
        self._lease_seconds = lease_seconds
        self._folder = folder
        self._processes: list[Process] = []
        self._news = asyncio.Event()
        self._by: list[tuple[str, Process]] = []
        self._closing = False
        self.began: list[tuple[str, float]] = []
        self.ended = 0

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self._tasks = await self._stack.enter_async_context(TaskGroup())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        for process in self._processes:
            process.send(signal.SIGKILL)
        await self._stack.__aexit__(kind, problem, trace)
        await asyncio.gather(*(process.child.wait() for process in self._processes))

    async def start(self, *names: str) -> None:
        """Returns when all of them listen."""
        started = [await self._spawn(name) for name in names]
        for process in started:
            await process.ready.wait()

    async def publish(self) -> None:
        """The four entries, past the proxy."""
        child = await self._run("publish", self._direct_url, "publisher")
        self._processes.append(Process("publisher", child, struck=True))
        if await child.wait():
            raise RuntimeError(f"{self._library.name} could not publish")

    async def who_began(self, subject: str) -> Process:
        while True:
            for name, process in self._by:
                if name == subject:
                    return process
            self._news.clear()
            await self._news.wait()

    async def _spawn(self, name: str) -> Process:
        process = Process(name, await self._run("work", self._url, name))
        self._processes.append(process)
        self._tasks.create_task(self._attend(process))
        return process

    async def _run(self, verb: str, url: str, name: str) -> asyncio.subprocess.Process:
        words = (self._library.program, verb, url, "peer", name, str(self._lease_seconds), str(self._folder))
        with (self._folder / f"{name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                self._library.python, "-m", *words, stdout=asyncio.subprocess.PIPE, stderr=log
            )

    async def _attend(self, process: Process) -> None:
        assert process.child.stdout is not None
        async for line in process.child.stdout:
            said = json.loads(line)
            if "ready" in said:
                process.ready.set()
            else:
                self.began.append((said["began"], said["at"]))
                self._by.append((said["began"], process))
                self._news.set()
        await process.child.wait()
        if process.struck or self._closing:
            return
        self.ended += 1
        await asyncio.sleep(0.2)
        if not self._closing:
            await self._spawn(process.name)
