"""Concurrency of transfers: the same image to all ranges of one host, under each limit in turn.

`python -m bench caps [--size BYTES] [--ranges N] [--caps 1,2,…] [--repeats N]`. The image is in the registry before the
clock starts, so what is measured is pulling and unpacking alone. Caps take turns, each on cold engines.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from bench.transfer.images import build_large
from bench.transfer.methods import services
from bench.transfer.testbed import Testbed, timed
from deploy.lab import Lab


def main(argv: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench caps", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=400_000_000, help="bytes of the image (%(default)s)")
    parser.add_argument("--ranges", type=int, default=6, help="ranges that want it at once (%(default)s)")
    parser.add_argument("--caps", default="1,2,3,4,6", help="transfers at work at a time (%(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="how often each cap is run (%(default)s)")
    options = parser.parse_args(list(argv))
    caps = [int(cap) for cap in options.caps.split(",")]
    seconds: defaultdict[int, list[float]] = defaultdict(list)
    until_ready: defaultdict[int, list[float]] = defaultdict(list)
    work: defaultdict[int, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder, Lab(folder) as lab:
        testbed, redis = Testbed(lab, lab.engine("host")), lab.redis()
        sys.stderr.write("building the image\n")
        image = build_large(testbed.host, lab.base_image_tar(), options.size)
        registry = lab.registry()
        for _ in range(options.repeats):
            for cap in caps:
                with (
                    testbed.engines(options.ranges) as ranges,
                    services(testbed, redis, registry, ranges, extractions_limit=cap) as here,
                ):
                    here.pushed(image)
                    before = sum(here.cpu().values())
                    with timed(seconds[cap]):
                        ended = here.deployed(image)
                    work[cap].append(sum(here.cpu().values()) - before)
                    until_ready[cap].append(statistics.mean(ended))
                    sys.stderr.write(f"  cap {cap}: all ready after {seconds[cap][-1]:6.2f} s\n")
                    for one in ranges:
                        testbed.verify(one, image)
    rows = [
        {
            "cap": cap,
            "seconds": round(statistics.median(seconds[cap]), 2),
            "mean_seconds_until_ready": round(statistics.median(until_ready[cap]), 2),
            "cpu_seconds": round(statistics.median(work[cap]), 2),
        }
        for cap in caps
    ]
    fastest = min(rows, key=lambda row: row["seconds"])
    _table(rows)
    return {
        "cores": os.cpu_count(),
        "ranges": options.ranges,
        "image_bytes": options.size,
        "repeats": options.repeats,
        "fastest_cap": fastest["cap"],
        "rows": rows,
    }


def _table(rows: Sequence[dict[str, Any]]) -> None:
    lines = ["", f"{'cap':>4} {'all ready, s':>14} {'a range on average, s':>23} {'CPU seconds':>13}"]
    lines += [
        f"{row['cap']:>4} {row['seconds']:>14.2f} {row['mean_seconds_until_ready']:>23.2f} {row['cpu_seconds']:>13.2f}"
        for row in rows
    ]
    sys.stderr.write("\n".join(lines) + "\n")
