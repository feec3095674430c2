"""Report of `python -m bench transfer --mounted`: the keys, what they are to reach, and whether they did."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

#: What is to be reached, and what would be better still. Of `AT_LEAST` more is better, of all others less.
TARGETS = {
    "known_1_vs_tar": (0.03, 0.015),
    "known_16_vs_tar_1": (0.15, 0.05),
    "known_10GB_vs_100MB": (1.5, 1.1),
    "first_1_vs_tar": (0.35, 0.15),
    "first_4_vs_tar": (0.15, 0.05),
    "ingest_vs_copy": (1.5, 1.0),
    "disk_16_vs_1": (1.02, 1.02),
    "page_cache_16_vs_1": (1.05, 1.05),
    "start_vs_pulled": (1.1, 1.0),
    "first_start_vs_pulled": (1.5, 1.0),
    "cold_read_vs_pulled": (0.85, 1.0),
    "small_files_vs_pulled": (1.2, 1.0),
    "new_range_seconds": (0.3, 0.1),
}
CLASSIC_TARGETS = {**TARGETS, "known_1_vs_tar": (0.05, 0.015)}
AT_LEAST = frozenset({"cold_read_vs_pulled"})
#: Ratios of medians: key → the seconds above and below.
RATIOS = {
    "known_1_vs_tar": ("known_1", "tar_1"),
    "known_16_vs_tar_1": ("known_16", "tar_1"),
    "known_10GB_vs_100MB": ("known_huge", "known_100MB"),
    "first_1_vs_tar": ("first_1", "tar_1"),
    "first_4_vs_tar": ("first_4", "tar_4"),
    "ingest_vs_copy": ("ingest", "copy"),
    "start_vs_pulled": ("start_mounted", "start_pulled"),
    "first_start_vs_pulled": ("first_start_mounted", "first_start_pulled"),
    "cold_read_vs_pulled": ("cold_read_pulled", "cold_read_mounted"),
    "small_files_vs_pulled": ("small_files_mounted", "small_files_pulled"),
    "small_files_warm_vs_pulled": ("small_files_warm_mounted", "small_files_warm_pulled"),
}


def report(
    kind: str, seconds: Mapping[str, Sequence[float]], bytes_ratios: Mapping[str, float], *, many: int
) -> dict[str, Any]:
    """Medians, and each key with what it is, reach, stretch and whether they are reached.

    `kind`: of store; `seconds`: lists by what was measured; `bytes_ratios`: keys that are no ratios of seconds; `many`:
    how many ranges `known_<many>` was measured with.
    """
    median = {name: statistics.median(all_) for name, all_ in seconds.items()}
    median["known_16"] = median.get(f"known_{many}", median["known_1"])
    found = {
        name: round(median[above] / median[below], 4)
        for name, (above, below) in RATIOS.items()
        if above in median and below in median
    }
    found |= bytes_ratios
    found["new_range_seconds"] = round(median["new_range"] - median["empty_start"], 3)
    return {
        "seconds": {name: round(one, 3) for name, one in sorted(median.items())},
        "keys": judged(found, CLASSIC_TARGETS if kind.endswith("classic") else TARGETS),
    }


def judged(found: Mapping[str, float], targets: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, Any]]:
    """Key → what it is, and where there are targets, these and whether they are reached. None: not measured."""
    keys: dict[str, dict[str, Any]] = {name: {"is": one} for name, one in found.items() if name not in targets}
    for name, wanted in targets.items():
        reached = {
            word: None if name not in found else found[name] >= bound if name in AT_LEAST else found[name] <= bound
            for word, bound in zip(("reached", "stretch_reached"), wanted, strict=True)
        }
        keys[name] = {"is": found.get(name), "reach": wanted[0], "stretch": wanted[1], **reached}
    return keys


def table(kinds: Mapping[str, Any]) -> None:
    """For people, on stderr."""
    for kind, found in kinds.items():
        lines = ["", f"{kind:<28} {'is':>8} {'reach':>8} {'stretch':>8}"]
        for name, one in found["keys"].items():
            missed = "" if one.get("reached", True) else "  not reached"
            words = [f"{one.get(word)!s:>8}" for word in ("is", "reach", "stretch")]
            lines.append(f"  {name:<26} {' '.join(words)}{missed}")
        sys.stderr.write("\n".join(lines) + "\n")
