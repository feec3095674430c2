"""The same faults against other libraries on Redis streams, and against ours in the same run.

Every run has a Redis of its own (append-only file), two worker processes of one library, and four entries
(`bench.faults.peers.workload`). A fault strikes; then it is counted which entries never had their effect (lost), which
had it more than once, and which handlers ran more often than the workload needs. A worker that ends by itself is
started again, as a supervisor would.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.faults.peer_scenarios import FAULTS, Peer, run_scenario
from bench.faults.peer_worker import Library
from bench.faults.peers import environment
from bench.faults.peers.workload import JOB_SECONDS
from deploy.lab import Lab
from events.task_group import TaskGroup

LEASE_SECONDS = 2.0
#: FastStream does not renew: its entries must be left alone for longer than the longest job.
PATIENCE_SECONDS = 5.0
TOGETHER = 6


def compare(repeats: int = 3, only: Sequence[str] = ()) -> dict[str, Any]:
    theirs = str(environment.python())
    libraries = (
        Library("ours", sys.executable, "bench.faults.peers.ours", LEASE_SECONDS, "finish"),
        Library("faststream", theirs, "bench.faults.peers.faststream_worker", PATIENCE_SECONDS, "xack"),
        Library("streaq", theirs, "bench.faults.peers.streaq_worker", LEASE_SECONDS, "exec"),
    )
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder, Lab(Path(folder)) as lab:
        results = asyncio.run(_run_scenarios(lab, libraries, repeats, only or FAULTS))
    sys.stderr.write(table(results))
    ours = [one for one in results if one.library == "ours"]
    return {
        "ok": not any(one.lost or one.duplicate_effects for one in ours),
        "repeats": repeats,
        "versions": list(environment.PINS),
        "lease_seconds": LEASE_SECONDS,
        "patience_seconds_faststream": PATIENCE_SECONDS,
        "job_seconds": JOB_SECONDS,
        "libraries": {library.name: _figures(results, library.name) for library in libraries},
    }


async def _run_scenarios(lab: Lab, libraries: Sequence[Library], repeats: int, faults: Sequence[str]) -> list[Peer]:
    gate = asyncio.Semaphore(TOGETHER)
    results: list[Peer] = []

    async def one(library: Library, fault: str, number: int) -> None:
        async with gate:
            found = await run_scenario(lab, library, fault, number, LEASE_SECONDS)
        results.append(found)
        sys.stderr.write(f"{found}\n")

    async with TaskGroup() as tasks:
        for number in range(repeats):
            for fault in faults:
                for library in libraries:
                    tasks.create_task(one(library, fault, number))
    return results


def _figures(results: Sequence[Peer], library: str) -> dict[str, dict[str, Any]]:
    return {
        fault: _figure([one for one in results if (one.library, one.fault) == (library, fault)]) for fault in FAULTS
    }


def _figure(runs: Sequence[Peer]) -> dict[str, Any]:
    takeovers = [one.takeover_seconds for one in runs if one.takeover_seconds is not None]
    return {
        "runs": len(runs),
        "struck": sum(one.struck for one in runs),
        "lost": sum(one.lost for one in runs),
        "duplicate_effects": sum(one.duplicate_effects for one in runs),
        "duplicate_runs": sum(one.duplicate_runs for one in runs),
        "workers_ended": sum(one.workers_ended for one in runs),
        "takeover_seconds_median": round(statistics.median(takeovers), 2) if takeovers else None,
        "takeover_seconds_max": round(max(takeovers), 2) if takeovers else None,
    }


def table(results: Sequence[Peer]) -> str:
    """Markdown: per fault and library `lost / duplicate effects / duplicate runs`, and the median takeover."""
    names = list(dict.fromkeys(sorted(one.library for one in results)))
    lines = [f"| fault | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for fault in dict.fromkeys(one.fault for one in results):
        cells = [_cell(_figures(results, name)[fault]) for name in names]
        lines.append(f"| {fault.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(figure: dict[str, Any]) -> str:
    text = f"{figure['lost']} / {figure['duplicate_effects']} / {figure['duplicate_runs']}"
    if figure["takeover_seconds_median"] is not None:
        text += f", {figure['takeover_seconds_median']} s"
    return text
