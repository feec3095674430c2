"""Many hosts on one Redis: whether each image comes from the host that announced it, and how time and bytes grow.

`python -m bench hosts --json [--hosts 3] [--images 240] [--cache-megabytes 256]`

Redis, registry-pushers, tar servers, deployer and agents are real, each role with connections of its own; the engines
and the registry are fakes that pass the contract suites. Half of the images have a name that another host's engine has
for other content, which nobody announced, or which was announced before. Each image is announced by its host, pushed,
and deployed to a range.

    wrong_content   pushes or deployments that brought other content than was announced
    lost            announcements or deployments without an end within the time
    failed          pushes or deployments that failed
    makespan_8_hosts_vs_1   time for 50 ranges on each of 8 hosts against that on one, slots as shipped, in faked time
    origin_bytes_vs_image   what four ranges of one host that have nothing take from the registry at once, through the
                            host's cache (real nginx, registry and engines), as a part of the image
    origin_bytes_second_range   what the next range takes
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.hosts.caches import cache_figures
from bench.hosts.installation import Installation
from bench.hosts.makespan import makespan
from deploy.lab import Lab

AT_MOST = {"wrong_content": 0, "lost": 0, "failed": 0, "makespan_8_hosts_vs_1": 1.2}
AT_MOST |= {"origin_bytes_vs_image": 1.05, "origin_bytes_second_range": 0}


async def _measure(url: str, *, hosts: int, images: int, folder: Path) -> dict[str, Any]:
    started = time.monotonic()
    async with Installation(url, hosts=hosts, folder=folder) as there:
        await there.announce(images)
        counts = await there.pushed()
        for name, count in (await there.deployed()).items():
            counts[name] += count
        return {**counts, "images": images, "hosts": hosts, "seconds": round(time.monotonic() - started, 1)}


def main(argv: Sequence[str]) -> dict[str, Any]:
    """One object, with `ok` if all is as it should be."""
    parser = argparse.ArgumentParser(
        prog="bench hosts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--images", type=int, default=240, help="0 leaves them out")
    parser.add_argument("--makespan-ranges", type=int, default=50, help="ranges on each host; 0 leaves it out")
    parser.add_argument("--cache-megabytes", type=int, default=256, help="of the cached image; 0 leaves it out")
    chosen = parser.parse_args(argv)
    figures: dict[str, Any] = {}
    if chosen.images:
        with tempfile.TemporaryDirectory(prefix="bench-hosts-") as name, Lab(Path(name)) as lab:
            figures |= asyncio.run(
                _measure(lab.redis().url, hosts=chosen.hosts, images=chosen.images, folder=Path(name) / "spools")
            )
    if chosen.makespan_ranges:
        sys.stderr.write("makespan of one host and of eight\n")
        one, eight = (makespan(hosts, ranges=chosen.makespan_ranges) for hosts in (1, 8))
        figures |= {
            "makespan_1_host_seconds": round(one, 1),
            "makespan_8_hosts_seconds": round(eight, 1),
            "makespan_8_hosts_vs_1": round(eight / one, 3),
        }
    if chosen.cache_megabytes:
        sys.stderr.write("a host's cache\n")
        with tempfile.TemporaryDirectory(prefix="bench-cache-") as name, Lab(Path(name)) as lab:
            figures |= cache_figures(lab, megabytes=chosen.cache_megabytes)
    reached = {key: figures[key] <= most for key, most in AT_MOST.items() if key in figures}
    return {"ok": all(reached.values()), **figures, "reached": reached}
