"""What gets lost or done twice when things break: every step of the bus, harmed in every way, on a real Redis.

Three kinds of faults: on the wire (a proxy drops, delays or cuts the reply of each command of the handler's path), of
the worker (SIGKILL, SIGSTOP longer than the lease, SIGTERM, before and after each command), of the server (SIGKILL and
restart, pause, FLUSHALL, SCRIPT FLUSH, out of memory, read-only, failover).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from bench import fault_process, fault_server, fault_wire
from bench.fault_story import LEASE_SECONDS, SUBJECTS, Verdict
from bench.fault_wire import Told
from deploy.lab import Lab
from events.task_group import TaskGroup

#: A story that takes longer hangs, and counts as lost.
STORY_SECONDS = 90.0
#: What a whole run is to reach; `ok` is the sum of it. A run of some kinds alone is not held to the number of faults.
INJECTED = 500
TAKEOVER_SECONDS = LEASE_SECONDS + 2
HANDBACK_SECONDS = 1.0

Case = tuple[str, Callable[[str], Awaitable[Told]]]


def main(argv: list[str]) -> dict[str, Any]:
    options = argparse.ArgumentParser(
        prog="bench faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=3, help="how often the whole matrix is run")
    options.add_argument("--occurrences", type=int, default=3, help="harm the first to the n-th time of each step")
    options.add_argument("--kinds", default="wire,process,server")
    options.add_argument("--together", type=int, default=10, help="stories told at the same time")
    options.add_argument("--peers", action="store_true", help="the same faults against FastStream and streaq")
    asked = options.parse_args(argv)
    if asked.peers:
        from bench.fault_peers import compare

        return compare(repeats=asked.rounds)
    with tempfile.TemporaryDirectory(prefix="bench-faults-") as folder, Lab(Path(folder)) as lab:
        return asyncio.run(matrix(lab, asked))


async def matrix(lab: Lab, asked: argparse.Namespace) -> dict[str, Any]:
    told: list[Told] = []
    redis = lab.redis("shared")
    address = ("127.0.0.1", redis.port)
    for number in range(asked.rounds):
        if "wire" in asked.kinds:
            wire = [
                (f"{step} {kind} {nth}", _wire(address, step, kind, nth))
                for step, kind, nth in fault_wire.cases(asked.occurrences)
            ]
            told += await run_all(f"wire, round {number + 1}", wire, asked.together)
        if "process" in asked.kinds:
            process = [
                (f"{step} {when} {sign}", _process(address, step, when, sign))
                for step, when, sign in fault_process.cases()
            ]
            told += await run_all(f"process, round {number + 1}", process, max(1, asked.together // 3))
        if "server" in asked.kinds:
            told += await fault_server.tell_all(lab, number)
    whole = all(kind in asked.kinds for kind in ("wire", "process", "server"))
    return summary(told, least=INJECTED if whole else 1)


def _wire(address: tuple[str, int], step: str, kind: Any, nth: int) -> Callable[[str], Awaitable[Told]]:
    return lambda prefix: fault_wire.tell(address, prefix, step, kind, nth)


def _process(address: tuple[str, int], step: str, when: str, sign: str) -> Callable[[str], Awaitable[Told]]:
    return lambda prefix: fault_process.tell(address, prefix, step, when, sign)


async def run_all(title: str, cases: Sequence[Case], together: int) -> list[Told]:
    """Every case under a prefix of its own, so many at a time."""
    gate = asyncio.Semaphore(together)
    found: list[Told] = []

    async def one(number: int, name: str, tell: Callable[[str], Awaitable[Told]]) -> None:
        async with gate:
            try:
                async with asyncio.timeout(STORY_SECONDS):
                    told = await tell(f"{title.replace(' ', '')}:{number}")
            except TimeoutError:
                told = Told(name, False, Verdict(len(SUBJECTS), 0), 0, [], [])
        found.append(told)
        if told.verdict.lost or told.verdict.duplicate_effects or not told.injected:
            say(f"  {name}: {told}")

    async with TaskGroup() as tasks:
        for number, (name, tell) in enumerate(cases):
            tasks.create_task(one(number, name, tell))
    say(f"{title}: {len(found)} stories, {sum(told.injected for told in found)} faults struck")
    return found


def summary(told: Sequence[Told], *, least: int) -> dict[str, Any]:
    """The counts; `ok` if nothing was lost or done twice, `least` faults struck, and takeovers were in time."""
    struck = [one for one in told if one.injected]
    takeovers = [seconds for one in told for seconds in one.takeover_seconds]
    handbacks = [seconds for one in told for seconds in one.handback_seconds]
    lost = sum(one.verdict.lost for one in told)
    twice = sum(one.verdict.duplicate_effects for one in told)
    in_time = _percentile(takeovers, 99) or 0.0, _percentile(handbacks, 99) or 0.0
    return {
        "ok": lost == twice == 0
        and len(struck) >= least
        and in_time[0] <= TAKEOVER_SECONDS
        and in_time[1] <= HANDBACK_SECONDS,
        "injected": len(struck),
        "injected_by_kind": dict(Counter(_kind(one.fault) for one in struck)),
        "not_struck": sorted(Counter(one.fault for one in told if not one.injected)),
        "lost": lost,
        "duplicate_effects": twice,
        "duplicate_runs": sum(one.duplicate_runs for one in told),
        "lease_seconds": LEASE_SECONDS,
        "takeover_seconds_p50": _percentile(takeovers, 50),
        "takeover_seconds_p99": _percentile(takeovers, 99),
        "handback_seconds_p50": _percentile(handbacks, 50),
        "handback_seconds_p99": _percentile(handbacks, 99),
    }


def _kind(fault: str) -> str:
    """`finish cut_after 2` → `cut_after`; `take after SIGKILL` → `SIGKILL`; server faults are their own kind."""
    words = fault.split()
    if words[-1].startswith("SIG"):
        return words[-1]
    return words[1] if words[-1].isdigit() else fault


def _percentile(values: Sequence[float], percent: int) -> float | None:
    if len(values) < 2:
        return round(values[0], 3) if values else None
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 3)


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
