"""The same faults against other libraries on Redis streams, and against ours in the same run.

Every story has a Redis of its own (append-only file), two worker processes of one library, and four entries
(`bench.peers.tale`). A fault strikes; then it is counted which entries never had their effect (lost), which had it more
than once, and which handlers ran more often than the story needs. A worker that ends by itself is started again, as a
supervisor would.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.fault_peer_stories import FAULTS, Peer, tell
from bench.fault_peer_worker import Library
from bench.peers import environment
from bench.peers.tale import JOB_SECONDS
from deploy.lab import Lab
from events.task_group import TaskGroup

LEASE_SECONDS = 2.0
#: FastStream does not renew: its entries must be left alone for longer than the longest job.
PATIENCE_SECONDS = 5.0
TOGETHER = 6


def compare(repeats: int = 3, only: Sequence[str] = ()) -> dict[str, Any]:
    theirs = str(environment.python())
    libraries = (
        Library("ours", sys.executable, "bench.peers.ours", LEASE_SECONDS, "finish"),
        Library("faststream", theirs, "bench.peers.faststream_worker", PATIENCE_SECONDS, "xack"),
        Library("streaq", theirs, "bench.peers.streaq_worker", LEASE_SECONDS, "exec"),
    )
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder, Lab(Path(folder)) as lab:
        told = asyncio.run(_tell_all(lab, libraries, repeats, only or FAULTS))
    sys.stderr.write(table(told))
    ours = [one for one in told if one.library == "ours"]
    return {
        "ok": not any(one.lost or one.duplicate_effects for one in ours),
        "repeats": repeats,
        "versions": list(environment.PINS),
        "lease_seconds": LEASE_SECONDS,
        "patience_seconds_faststream": PATIENCE_SECONDS,
        "job_seconds": JOB_SECONDS,
        "libraries": {library.name: _figures(told, library.name) for library in libraries},
    }


async def _tell_all(lab: Lab, libraries: Sequence[Library], repeats: int, faults: Sequence[str]) -> list[Peer]:
    gate = asyncio.Semaphore(TOGETHER)
    told: list[Peer] = []

    async def one(library: Library, fault: str, number: int) -> None:
        async with gate:
            found = await tell(lab, library, fault, number, LEASE_SECONDS)
        told.append(found)
        sys.stderr.write(f"{found}\n")

    async with TaskGroup() as tasks:
        for number in range(repeats):
            for fault in faults:
                for library in libraries:
                    tasks.create_task(one(library, fault, number))
    return told


def _figures(told: Sequence[Peer], library: str) -> dict[str, dict[str, Any]]:
    return {fault: _figure([one for one in told if (one.library, one.fault) == (library, fault)]) for fault in FAULTS}


def _figure(stories: Sequence[Peer]) -> dict[str, Any]:
    takeovers = [one.takeover_seconds for one in stories if one.takeover_seconds is not None]
    return {
        "stories": len(stories),
        "struck": sum(one.struck for one in stories),
        "lost": sum(one.lost for one in stories),
        "duplicate_effects": sum(one.duplicate_effects for one in stories),
        "duplicate_runs": sum(one.duplicate_runs for one in stories),
        "workers_ended": sum(one.workers_ended for one in stories),
        "takeover_seconds_median": round(statistics.median(takeovers), 2) if takeovers else None,
        "takeover_seconds_max": round(max(takeovers), 2) if takeovers else None,
    }


def table(told: Sequence[Peer]) -> str:
    """Markdown: per fault and library `lost / duplicate effects / duplicate runs`, and the median takeover."""
    names = list(dict.fromkeys(sorted(one.library for one in told)))
    lines = [f"| fault | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for fault in dict.fromkeys(one.fault for one in told):
        cells = [_cell(_figures(told, name)[fault]) for name in names]
        lines.append(f"| {fault.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(figure: dict[str, Any]) -> str:
    text = f"{figure['lost']} / {figure['duplicate_effects']} / {figure['duplicate_runs']}"
    if figure["takeover_seconds_median"] is not None:
        text += f", {figure['takeover_seconds_median']} s"
    return text
