"""Attacks on a running Compose stack, from inside a range and by a careless host user: what was tried, what did harm.

    python -m bench attacks --json --range r28 --victim r26 [--only NAME…] [--list]

The stack is one that was started by `make up` and has both ranges (`ranges add`). `honest_vs_alone` is the median time of
an honest deployment to the victim beside each flood, against the time alone; `recovered_seconds` how long after the
flood's end the first honest deployment took to be as fast as twice alone, the longest of all floods.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.attacks import archives, browser, engine, fetching, kernel, messages, network, secrets, sizes
from bench.attacks.register import ATTACKS, FLOODS, Attack, Result
from bench.attacks.stage import HONEST_SECONDS, Stage
from deploy.machine.commands import MachineError

#: Importing them puts their attacks on the list.
MODULES = (messages, sizes, fetching, network, kernel, engine, secrets, archives, browser)
HONEST_TIMES = 5
#: After a flood the services have so long to be as they were.
RECOVERY_SECONDS = 120.0


def main(argv: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench attacks", description=__doc__)
    parser.add_argument("--range", default="r28", help="the attacker's range (default: r28)")
    parser.add_argument("--victim", default="r26", help="another range (default: r26)")
    parser.add_argument("--data", default=os.environ.get("CYROID_DATA_DIR", "/data/cyroid"), help="the stack's folder")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="some attacks alone")
    parser.add_argument("--list", action="store_true", help="what there is, and stop")
    options = parser.parse_args(argv)
    if options.list:
        return {"attacks": {name: _first_line(one) for name, one in ATTACKS.items()}}
    stage = Stage(attacker=options.range, victim=options.victim, data=Path(options.data))
    well = network.control(stage)
    if well != network.WELL:
        raise SystemExit(f"the control fails, so nothing would be shown: {well}, expected {network.WELL}")
    with closing(stage):
        return run(stage, {name: one for name, one in ATTACKS.items() if not options.only or name in options.only})


def run(stage: Stage, chosen: dict[str, Attack]) -> dict[str, Any]:
    """Try each in turn; the floods beside honest deployments."""
    alone = statistics.median(stage.honest() for _ in range(HONEST_TIMES))
    stage.killed()
    rows, ratios, recovered = [], [], [0.0]
    for name, one in chosen.items():
        begun = time.monotonic()
        result, beside, after = _flooded(stage, one, alone) if name in FLOODS else (_tried(stage, one), 0.0, 0.0)
        row: dict[str, Any] = {"name": name, "harm": result.harm, "said": result.said[-400:]}
        row["seconds"] = round(time.monotonic() - begun, 1)
        if name in FLOODS:
            ratios.append(beside / alone)
            recovered.append(after)
            row |= {"honest_vs_alone": round(beside / alone, 2), "recovered_seconds": round(after, 1)}
        rows.append(row)
        sys.stderr.write(f"{'HARM' if result.harm else 'held'}  {name}: {row['said'][-160:]}\n")
    succeeded = [str(row["name"]) for row in rows if row["harm"]]
    return {
        "tried": len(rows),
        "succeeded": len(succeeded),
        "which_succeeded": succeeded,
        "honest_alone_seconds": round(alone, 2),
        "honest_vs_alone": round(max(ratios), 2) if ratios else None,
        "recovered_seconds": round(max(recovered), 1),
        "attacks": rows,
        "ok": not succeeded,
    }


def _tried(stage: Stage, one: Attack) -> Result:
    """An attack that cannot be carried out shows nothing, so it counts as harm until it can."""
    try:
        return one(stage)
    except (MachineError, OSError, ValueError, IndexError, subprocess.SubprocessError) as problem:
        return Result(True, f"could not be carried out: {problem}")


def _flooded(stage: Stage, one: Attack, alone: float) -> tuple[Result, float, float]:
    """What the flood did, the median honest time beside it, and the seconds after it until all is as before."""
    begun = time.monotonic()
    result = _tried(stage, one)
    beside = []
    while time.monotonic() - begun < sizes.FLOOD_SECONDS:
        beside.append(stage.honest())
    ended = time.monotonic()
    while time.monotonic() - ended < RECOVERY_SECONDS and stage.honest() > 2 * alone:
        pass
    recovered = time.monotonic() - ended
    killed = stage.killed()
    unserved = [seconds for seconds in beside if seconds >= HONEST_SECONDS]
    harm = result.harm or bool(killed) or bool(unserved)
    said = f"{result.said}; beside it {[round(one, 2) for one in beside]}; killed: {killed}"
    return Result(harm, said), statistics.median(beside), recovered


def _first_line(one: Attack) -> str:
    return (one.__doc__ or "").partition("\n")[0]
