"""Workload that every library is given, and how its programs talk to the bench. Standard library only.

A program is started as `python -m bench.faults.peers.NAME work|publish URL PREFIX WORKER LEASE FOLDER`. It writes one
JSON line when it is ready and one when a handler begins. A handler's effect is one entry `done:SUBJECT;` on
PREFIX:effects, made with the library's own means as the last thing that the handler does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

#: Two short ones, one whose handler raises when it is run first, one that takes longer than a lease.
SUBJECTS = ("quick-1", "quick-2", "flaky", "long")
JOB_SECONDS = 3.2
GRACE_SECONDS = 1


class NotThisTimeError(Exception):
    """What the flaky one raises."""


@dataclass(frozen=True)
class WorkerArguments:
    """What a program is arguments on its command line."""

    verb: str
    url: str
    prefix: str
    worker: str
    lease_seconds: float
    folder: Path

    @property
    def effects(self) -> str:
        return f"{self.prefix}:effects"


def arguments() -> WorkerArguments:
    verb, url, prefix, worker, lease, folder = sys.argv[1:]
    return WorkerArguments(verb, url, prefix, worker, float(lease), Path(folder))


def ready() -> None:
    os.write(1, b'{"ready": true}\n')


async def job(subject: str, folder: Path) -> str:
    """The handler's work; returns its effect."""
    os.write(1, (json.dumps({"began": subject, "at": time.time()}) + "\n").encode())
    if subject == "flaky" and _first_time(folder / "flaky"):
        raise NotThisTimeError
    await asyncio.sleep(JOB_SECONDS if subject == "long" else 0.02)
    return f"done:{subject};"


def _first_time(mark: Path) -> bool:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
