"""Simulation of thousands of deployments in faked time, with faults at every step: does each end once, and correctly?

`python -m bench simulate --json [--faults 20000] [--deployments 2000] [--sweep 10] [--seed N]`

All roles are the real ones, as processes that can be killed: two deployers, two pushers, tar server, tracker, agent
pool, an agent in each range (`bench.simulation.processes`). They stand on fakes of Redis, registry and engines, and on
real spools. Each round is an installation of its own with a seed of its own; one that goes wrong is repeated with
`--seed N --faults 1 --deployments 1 --sweep 0`. Faults in calls are those of `bench.simulation.fault_proxies`, those
around the processes of `bench.simulation.nemesis`. When they end, everything must come to rest within an hour of the
installation's own time, and is looked at (`bench.simulation.checker`).

Afterwards a short workload is run again and again, with a single fault at each of its calls (`bench.simulation.sweep`).

    lost    deployments that nobody knows, or whose end was never told
    wrong   anything else that must not be: content, outcomes, uploads, slots, names, spools, the read model
    stuck   deployments still open after that hour
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bench.simulation.fault_injection import Dice
from bench.simulation.run import SimulationRun
from bench.simulation.sweep import WORKLOAD, Sweep
from bench.simulation.workload import DEPLOYMENTS, rolled


def simulate(seed: int) -> SimulationRun:
    """One run, drawn at random from this seed."""
    dice = random.Random(seed)
    random.seed(seed)
    return SimulationRun(rolled(dice), Dice(dice), name=f"seed {seed}").run()


def _by_role(places: Mapping[tuple[str, str], int]) -> Counter[str]:
    """Faults in calls, without the numbers of the processes."""
    roles = Counter[str]()
    for (process, _call), times in places.items():
        roles[process.rpartition("-")[0] if process[-1].isdigit() else process] += times
    return roles


def main(argv: Sequence[str]) -> dict[str, Any]:
    """One object: deployments, faults by kind and by role, lost, wrong, stuck, and how deployments ended."""
    parser = argparse.ArgumentParser(
        prog="bench simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=20_000, help="go on until so many were injected")
    parser.add_argument("--deployments", type=int, default=2_000, help="and until so many were asked for")
    parser.add_argument(
        "--sweep", type=int, default=10, help="hit one of so many steps of the workload (1: each; 0: none)"
    )
    parser.add_argument("--seed", type=int, default=1, help="the first round's seed")
    chosen = parser.parse_args(argv)
    total, faults, reasons, places, rounds = Counter[str](), Counter[str](), Counter[str](), Counter[str](), 0
    while faults.total() < chosen.faults or rounds * DEPLOYMENTS < chosen.deployments:
        one = simulate(chosen.seed + rounds)
        rounds += 1
        total += one.count
        faults += one.faults.kinds
        reasons += one.reasons
        places += _by_role(one.faults.places)
        for problem in one.problems:
            sys.stderr.write(problem + "\n")
        if rounds % 20 == 0:
            sys.stderr.write(f"{rounds} rounds, {faults.total()} faults, {dict(total)}\n")
    sweep = Sweep()
    for told in sweep.run(every=chosen.sweep) if chosen.sweep else ():
        if told % 100 == 0:
            sys.stderr.write(f"{told} steps of the workload hit, {len(sweep.problems)} problems\n")
    for problem in sweep.problems:
        sys.stderr.write(problem + "\n")
    total, faults, places = total + sweep.count, faults + sweep.kinds, places + _by_role(sweep.places)
    ends = {state: total[state] for state in ("succeeded", "failed", "cancelled")}
    bad = {kind: total[kind] for kind in ("lost", "wrong", "stuck")}
    return {
        "deployments": rounds * DEPLOYMENTS + sweep.rounds * len(WORKLOAD.asks),
        "faults": faults.total(),
        **bad,
        "ended": ends,
        "images": {how: total[how] for how in ("pulled", "mounted", "loaded", "retagged", "present")},
        "failures_by_reason": dict(sorted(reasons.items())),
        "rounds": rounds,
        "steps_hit": sweep.rounds,
        "by_kind": dict(sorted(faults.items())),
        "in_calls_by_role": dict(sorted(places.items())),
        "ok": not any(bad.values()),
    }
