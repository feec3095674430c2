"""Kills every role at every stage of real deployments, and checks that each deployment ends correctly.

`python -m bench killall [--kills N] [--only ROLE]`. Real engines, a real registry and a real Redis; each role is a
process of its own, and what was killed comes back after less than a second, as Compose would bring it. Each kill has a
new image on its way to two ranges. Counted are the kills that hit while the deployment was under way.

lost   deployments without an outcome            stuck  with one that came too late
wrong  content in a range that its engine reports as another than the host's, a name without content that was said to
       be ready, or a second outcome

Redis writes its file at every command here (`appendfsync always`), so that what it has confirmed survives it. With
`everysec` a second of confirmed writes may be lost when the machine dies; `--appendfsync everysec` tries it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from bench.killall.mounted import VICTIMS as MOUNTED_VICTIMS
from bench.killall.mounted import main as mounted_main
from bench.killall.schedule import PLAN, VICTIMS, Kill, planned
from bench.killall.supervisor import Supervisor, supervised
from bench.killall.trial import Register, Result, Trial
from deploy.lab import Lab

MISSES = 20
"""So many kills may come too late before the measurement gives up."""


def killed(here: Supervisor, plan: Iterable[Kill], kills: int, seed: int) -> tuple[list[Result], list[str]]:
    """Kill as planned until `kills` have hit; all results, and deployments that got a second outcome."""
    source, results = random.Random(seed), list[Result]()
    with here.system.logbook() as book:
        register = Register(book)
        for kill in plan:
            hits = sum(result.hit is not None for result in results)
            if hits >= kills or len(results) - hits > MISSES:
                break
            results.append(Trial(here, book, register, kill, source).run())
            sys.stderr.write(f"{hits + 1:4} {results[-1].line()}\n")
            sys.stderr.flush()
        register.read()
    return results, [f"{one} ended {len(ends)} times" for one, ends in register.ends.items() if len(ends) > 1]


def report(here: Supervisor, results: list[Result], twice: list[str], seconds: float) -> dict[str, Any]:
    hits = [result for result in results if result.hit is not None]
    by_role: defaultdict[str, Counter[str]] = defaultdict(Counter)
    after: defaultdict[str, list[float]] = defaultdict(list)
    for result in hits:
        way = "tar: " if result.kill.by_tar else ""
        by_role[result.kill.victim][f"{way}{result.hit}"] += 1
        after[result.kill.victim].append(result.seconds)
    lost, stuck, wrong, failed, leftovers = (
        [line for result in results for line in getattr(result, name)]
        for name in ("lost", "stuck", "wrong", "failed", "leftovers")
    )
    return {
        "kills": len(hits),
        "lost": len(lost),
        "wrong": len(wrong) + len(twice),
        "stuck": len(stuck),
        "failed": len(failed),
        "leftovers": len(leftovers),
        "by_role_and_phase": {role: dict(counts) for role, counts in sorted(by_role.items())},
        "seconds": round(seconds, 1),
        "seconds_from_kill_to_end": {
            role: {"median": statistics.median(all_), "max": max(all_)} for role, all_ in sorted(after.items())
        },
        "came_too_late": len(results) - len(hits),
        "died_unasked": dict(here.died),
        "uploads_left_to_purge": here.open_uploads(),
        "details": [*lost, *stuck, *wrong, *twice, *failed, *leftovers],
        "ok": not (lost or stuck or wrong or twice or failed or leftovers),
    }


def main(argv: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench killall", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--kills", type=int, default=len(PLAN), help="how many have to hit (%(default)s: the plan, once)"
    )
    parser.add_argument("--only", help="kill this alone")
    parser.add_argument("--ranges", type=int, default=2, help="ranges that get each image (%(default)s)")
    parser.add_argument("--size", type=int, default=40_000_000, help="bytes of each image's layer (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the order and of the delays (%(default)s)")
    parser.add_argument("--mounted", action="store_true", help="kill at each step of the way of mounted layers instead")
    parser.add_argument("--appendfsync", choices=("always", "everysec"), default="always", help="Redis's own setting")
    options = parser.parse_args(list(argv))
    victims = MOUNTED_VICTIMS if options.mounted else VICTIMS
    if options.only not in {None, *victims}:
        parser.error(f"--only takes one of {', '.join(victims)}, not {options.only}")
    if options.mounted:
        return mounted_main(options.only, options.seed)
    with (
        tempfile.TemporaryDirectory(prefix="kill-", dir="/var/tmp") as folder,
        Lab(folder) as lab,
        supervised(lab, ranges=options.ranges, layer_bytes=options.size, appendfsync=options.appendfsync) as here,
    ):
        began = time.monotonic()
        results, twice = killed(here, planned(options.only, options.seed), options.kills, options.seed)
        return report(here, results, twice, time.monotonic() - began)
