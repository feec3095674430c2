"""Fault injection: which calls of which process fail, by random draws or by a script."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from bench.simulation.fault_proxies import Kind
from bench.simulation.processes import Process
from events.task_group import TaskGroup

_WEIGHTS: Mapping[Kind, int] = {
    "lost call": 3,
    "lost reply": 3,
    "late": 4,
    "very late": 1,
    "killed before": 2,
    "killed after": 2,
}


class Faults(ABC):
    """Counts what it injected: `kinds`, and `places` as (process, call). None before `begin` and after `calm`.

    To be entered: killed processes are started again inside.
    """

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.places: Counter[tuple[str, str]] = Counter()
        self._calm = True

    async def __aenter__(self) -> Self:
        self._tasks = await TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.__aexit__(kind, problem, trace)

    def begin(self) -> None:
        self._calm = False

    def calm(self) -> None:
        self._calm = True

    def pick(self, process: Process, call: str) -> Kind | None:
        """What happens to this call."""
        if self._calm:
            return None
        kind = self.chosen(process.name, call)
        if kind is not None:
            self.kinds[kind] += 1
            self.places[process.name, call] += 1
        return kind

    def kill(self, process: Process) -> None:
        """End a process now, start it again after a while."""
        process.alive = False
        self._tasks.create_task(self._kill(process))

    async def _kill(self, process: Process) -> None:
        await process.kill()
        await asyncio.sleep(self.away_seconds())
        process.start()

    @abstractmethod
    def chosen(self, process: str, call: str) -> Kind | None:
        """What happens to this call; None most of the time."""

    def late_seconds(self) -> float:
        return 1.0

    def away_seconds(self) -> float:
        return 2.0


class Dice(Faults):
    """Random faults: every call may be hit; pieces of streams seldom, calls of one chosen kind of process often."""

    def __init__(self, dice: random.Random, *, likely: float = 0.04) -> None:
        super().__init__()
        self._dice = dice
        self._likely = likely
        self._focus = dice.choice(("deployer", "pusher", "tar-server", "tracker", "agent-r", "agent-pool"))

    def chosen(self, process: str, call: str) -> Kind | None:
        likely = self._likely / 2 if call.endswith("piece") else self._likely
        likely *= 4 if process.startswith(self._focus) else 1
        if self._dice.random() >= likely:
            return None
        return self._dice.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))[0]

    def late_seconds(self) -> float:
        return self._dice.uniform(0.01, 3.0)

    def away_seconds(self) -> float:
        return self._dice.uniform(0.1, 8.0)


class Script(Faults):
    """The calls named, and no other: by process and the number of its call, from 0. `calls` is what was called."""

    def __init__(self, lines: Mapping[tuple[str, int], Kind]) -> None:
        super().__init__()
        self.calls: dict[str, list[str]] = {}
        self._lines = dict(lines)

    def chosen(self, process: str, call: str) -> Kind | None:
        calls = self.calls.setdefault(process, [])
        calls.append(call)
        return self._lines.get((process, len(calls) - 1))
