"""Fault matrix of the bus: lost entries and duplicate effects, for every step and every kind of fault, on a real Redis.

Three kinds of faults: on the wire (a proxy drops, delays or cuts the reply of each command of the handler's path), of
the worker (SIGKILL, SIGSTOP longer than the lease, SIGTERM, before and after each command), of the server (SIGKILL and
restart, pause, FLUSHALL, SCRIPT FLUSH, out of memory, read-only, failover).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from bench.faults import process as fault_process
from bench.faults import server as fault_server
from bench.faults import wire as fault_wire
from bench.faults.trials import FaultResult, run_all
from bench.faults.workload import LEASE_SECONDS
from deploy.lab import Lab

#: What a whole run is to reach; `ok` is the sum of it. A run of some kinds alone is not held to the number of faults.
INJECTED = 500
TAKEOVER_SECONDS = LEASE_SECONDS + 2
HANDBACK_SECONDS = 1.0


def main(argv: list[str]) -> dict[str, Any]:
    options = argparse.ArgumentParser(
        prog="bench faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=3, help="how often the whole matrix is run")
    options.add_argument("--occurrences", type=int, default=3, help="harm the first to the n-th time of each step")
    options.add_argument("--kinds", default="wire,process,server")
    options.add_argument("--together", type=int, default=10, help="trials at the same time")
    options.add_argument("--peers", action="store_true", help="the same faults against FastStream and streaq")
    asked = options.parse_args(argv)
    if asked.peers:
        from bench.faults.peer_comparison import compare

        return compare(repeats=asked.rounds)
    with tempfile.TemporaryDirectory(prefix="bench-faults-") as folder, Lab(Path(folder)) as lab:
        return asyncio.run(matrix(lab, asked))


async def matrix(lab: Lab, asked: argparse.Namespace) -> dict[str, Any]:
    results: list[FaultResult] = []
    redis = lab.redis("shared")
    address = ("127.0.0.1", redis.port)
    for number in range(asked.rounds):
        if "wire" in asked.kinds:
            wire = [
                (f"{step} {kind} {nth}", _wire(address, step, kind, nth))
                for step, kind, nth in fault_wire.cases(asked.occurrences)
            ]
            results += await run_all(f"wire, round {number + 1}", wire, asked.together)
        if "process" in asked.kinds:
            process = [
                (f"{step} {when} {sign}", _process(address, step, when, sign))
                for step, when, sign in fault_process.cases()
            ]
            results += await run_all(f"process, round {number + 1}", process, max(1, asked.together // 3))
        if "server" in asked.kinds:
            results += await fault_server.run_trials(lab, number)
    whole = all(kind in asked.kinds for kind in ("wire", "process", "server"))
    return summary(results, least=INJECTED if whole else 1)


def _wire(address: tuple[str, int], step: str, kind: Any, nth: int) -> Callable[[str], Awaitable[FaultResult]]:
    return lambda prefix: fault_wire.run_trial(address, prefix, step, kind, nth)


def _process(address: tuple[str, int], step: str, when: str, sign: str) -> Callable[[str], Awaitable[FaultResult]]:
    return lambda prefix: fault_process.run_trial(address, prefix, step, when, sign)


def summary(results: Sequence[FaultResult], *, least: int) -> dict[str, Any]:
    """The counts; `ok` if nothing was lost or done twice, `least` faults struck, and takeovers were in time."""
    struck = [one for one in results if one.injected]
    takeovers = [seconds for one in results for seconds in one.takeover_seconds]
    handbacks = [seconds for one in results for seconds in one.handback_seconds]
    lost = sum(one.outcomes.lost for one in results)
    twice = sum(one.outcomes.duplicate_effects for one in results)
    in_time = _percentile(takeovers, 99) or 0.0, _percentile(handbacks, 99) or 0.0
    return {
        "ok": lost == twice == 0
        and len(struck) >= least
        and in_time[0] <= TAKEOVER_SECONDS
        and in_time[1] <= HANDBACK_SECONDS,
        "injected": len(struck),
        "injected_by_kind": dict(Counter(_kind(one.fault) for one in struck)),
        "not_struck": sorted(Counter(one.fault for one in results if not one.injected)),
        "lost": lost,
        "duplicate_effects": twice,
        "duplicate_runs": sum(one.duplicate_runs for one in results),
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
