"""Trials of the bus under one fault each: run so many at a time, with their results."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench.faults.workload import SUBJECTS, Outcomes
from events.task_group import TaskGroup

#: A trial that takes longer hangs, and counts as lost.
TRIAL_SECONDS = 90.0


@dataclass
class FaultResult:
    """The result under one fault. `takeover_seconds` and `handback_seconds` where the fault has one."""

    fault: str
    injected: bool
    outcomes: Outcomes
    duplicate_runs: int
    takeover_seconds: list[float]
    handback_seconds: list[float]


Case = tuple[str, Callable[[str], Awaitable[FaultResult]]]
"""A name, and what runs the trial under a key prefix."""


async def run_all(title: str, cases: Sequence[Case], together: int) -> list[FaultResult]:
    """Every case under a prefix of its own, so many at a time."""
    gate = asyncio.Semaphore(together)
    found: list[FaultResult] = []

    async def one(number: int, name: str, trial: Callable[[str], Awaitable[FaultResult]]) -> None:
        async with gate:
            try:
                async with asyncio.timeout(TRIAL_SECONDS):
                    result = await trial(f"{title.replace(' ', '')}:{number}")
            except TimeoutError:
                result = FaultResult(name, False, Outcomes(len(SUBJECTS), 0), 0, [], [])
        found.append(result)
        if result.outcomes.lost or result.outcomes.duplicate_effects or not result.injected:
            say(f"  {name}: {result}")

    async with TaskGroup() as tasks:
        for number, (name, trial) in enumerate(cases):
            tasks.create_task(one(number, name, trial))
    say(f"{title}: {len(found)} trials, {sum(result.injected for result in found)} faults struck")
    return found


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
