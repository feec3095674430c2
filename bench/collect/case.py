"""Garbage collection of a registry in use: content lost to concurrent pulls, pushes, kills and deletions, and its cost.

A storm (`bench.collect.storm`) runs pushers that announce and strangers that do not, pullers (some slower than the
grace, with a pin), deletions by tag and by digest, a collector, a scrubber, and a reclaimer on a real engine, which are
killed between any two steps; pushers and the registry's writing process are killed too. The control is the same storm
without grace and intents: it must fail, or the storm proves nothing. A third one kills nobody: the time that pushes of
the project lose there to refusals is `blocked_push_ms`. `bench.collect.exactness` compares what is said with what is
done, `bench.collect.cost` measures what a collection costs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.collect.cost import generate, mark_in_its_own_process, pull_ratio, stats_p99_ms
from bench.collect.exactness import bytes_error, full_disk_failed, repaired_vs_damaged
from bench.collect.storm import Storm, StormReport
from deploy.lab import Lab

#: What has to be nothing, and what has to be at most or at least so much.
_NOTHING = (
    *(
        "failed",
        "wrong",
        "lost_blobs",
        "broken_manifests",
        "left_over_blobs",
        "acknowledged_lost",
        "reclaim_lost",
        "blocked_push_ms",
    ),
    *("bytes_error", "figures_vs_files", "full_disk_failed"),
)
_AT_MOST = {"mark_seconds": 4, "mark_peak_bytes": 64 * 1024**2, "stats_p99_ms": 20, "pull_ratio": 1.1}
_AT_LEAST = {"control_failures": 1, "repaired_vs_damaged": 1.0}


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench collect", description=__doc__)
    parser.add_argument("--seconds", type=float, default=240, help="length of the storm")
    parser.add_argument("--control-seconds", type=float, default=30, help="length of the control")
    parser.add_argument("--calm-seconds", type=float, default=20, help="length of the storm without kills")
    parser.add_argument("--images", type=int, default=10_000, help="images of the store that is marked")
    parser.add_argument("--pull-bytes", type=int, default=1024**3, help="size of the blob that is pulled")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-collect-") as folder, Lab(Path(folder) / "lab") as lab:
        figures = {
            **_cost(lab, Path(folder) / "generated", chosen.images, chosen.pull_bytes),
            **_exactness(lab, Path(folder)),
            **_storms(lab, chosen),
        }
    problems = _problems(figures)
    for line in problems:
        _say(line)
    return {"ok": not problems, **figures}


def _cost(lab: Lab, generated: Path, images: int, pull_bytes: int) -> dict[str, Any]:
    _say(f"mark of {images} images")
    generate(generated, images)
    mark = mark_in_its_own_process(generated)
    redis = lab.redis("cost-redis")
    _say("reading the figures")
    stats = asyncio.run(stats_p99_ms(redis, generated))
    _say(f"pull of {pull_bytes} bytes beside collections")
    ratio = asyncio.run(pull_ratio(lab, redis, pull_bytes, generated))
    return {**mark, "stats_p99_ms": stats, "pull_ratio": ratio}


def _exactness(lab: Lab, folder: Path) -> dict[str, Any]:
    _say("bytes, figures, damage, a full disk")
    return {
        **asyncio.run(bytes_error(lab)),
        "repaired_vs_damaged": asyncio.run(repaired_vs_damaged(lab)),
        "full_disk_failed": asyncio.run(full_disk_failed(lab, folder)),
    }


def _storms(lab: Lab, chosen: argparse.Namespace) -> dict[str, Any]:
    _say(f"storm of {chosen.seconds:g} s")
    storm = asyncio.run(Storm(lab, "storm", seconds=chosen.seconds, seed=chosen.seed).run())
    _say(f"control of {chosen.control_seconds:g} s")
    careless = Storm(lab, "control", seconds=chosen.control_seconds, seed=chosen.seed, careless=True)
    control = asyncio.run(careless.run())
    _say(f"storm without kills, {chosen.calm_seconds:g} s")
    calm = asyncio.run(Storm(lab, "calm", seconds=chosen.calm_seconds, seed=chosen.seed, calm=True).run())
    return {
        **_figures(storm),
        "control_failures": len(control.ledger.failed)
        + control.lost_blobs
        + control.broken_manifests
        + control.ledger.own_refused
        + control.ledger.stranger_refused,
        "blocked_push_ms": round(calm.ledger.own_blocked_seconds * 1000),
    }


def _figures(storm: StormReport) -> dict[str, Any]:
    ledger = storm.ledger
    for line in (*ledger.failed, *ledger.wrong)[:20]:
        _say(line)
    return {
        "pulls": ledger.pulls,
        "failed": len(ledger.failed),
        "wrong": len(ledger.wrong),
        "pushes": ledger.pushes,
        "deletes": ledger.deleted,
        "own_pushes_refused": ledger.own_refused,
        "stranger_pushes_refused": ledger.stranger_refused,
        "kills": sum(storm.kills.values()),
        "kills_of": storm.kills,
        "lost_blobs": storm.lost_blobs,
        "broken_manifests": storm.broken_manifests,
        "left_over_blobs": storm.left_over_blobs,
        "acknowledged_lost": storm.acknowledged_lost,
        "reclaim_lost": storm.reclaim_lost,
    }


def _problems(figures: dict[str, Any]) -> list[str]:
    found = [f"{key} is {figures[key]}, not 0" for key in _NOTHING if figures[key]]
    found += [f"{key} is {figures[key]}, more than {most}" for key, most in _AT_MOST.items() if figures[key] > most]
    found += [f"{key} is {figures[key]}, less than {least}" for key, least in _AT_LEAST.items() if figures[key] < least]
    return found


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
