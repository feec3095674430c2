"""Processes that can be killed and started again, each running roles as `services.bootstrap` composes them.

Every life of a process opens all of it anew, so that nothing but bus, registry, engines and disk remembers anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from services.adapters.openers import Adapters
from services.runtime.shutdown import Stop
from services.serving import run
from services.settings import Settings


class Process:
    """A program that can be killed and started again."""

    def __init__(self, name: str, program: Program) -> None:
        self.name = name
        self.lives = 0
        self.alive = False
        #: What ended a life that nobody had ended: a role is to outlive whatever happens to it.
        self.crashes: list[BaseException] = []
        self._program = program
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin a life, unless one is being lived."""
        if self._task is not None and not self._task.done():
            return
        self.lives += 1
        self.alive = True
        self._task = asyncio.create_task(self._live(), name=f"{self.name}.{self.lives}")

    async def _live(self) -> None:
        try:
            await self._program(self)
        except Exception as crash:  # noqa: BLE001  told by whoever looks at this process
            self.crashes.append(crash)

    async def kill(self) -> None:
        """As kill -9 does: what it says from now on reaches nobody."""
        self.alive = False
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])


Program = Callable[[Process], Awaitable[None]]
Proxy = Callable[[Any, Process], Any]
"""Gives what stands between a process and something outside it."""


def direct(thing: Any, process: Process) -> Any:
    """No fault proxy."""
    return thing


def serving(role: str, settings: Callable[[], Settings], adapters: Callable[[Process], Adapters]) -> Program:
    """A program that serves one role, with settings and adapters made anew for each life."""

    async def program(process: Process) -> None:
        await run(settings(), [role], Stop(), adapters(process))

    return program
