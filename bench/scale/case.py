"""Scale: a model of many hosts with large images, by how content comes to them: where each arrangement stops.

`python -m bench scale [--hosts N] [--ranges N] [--gigabytes N] [--page]`. Nothing is transferred; the model is
calibrated with what docs/measurements.md measured. `--page` writes docs/scale.md and its drawing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.scale import report
from bench.scale.model import ARRANGEMENTS, GB, Site, most_hosts


def main(argv: Sequence[str]) -> dict[str, Any]:
    """One object: the assumptions, and an entry for each arrangement."""
    default = Site()
    parser = argparse.ArgumentParser(
        prog="bench scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=default.hosts)
    parser.add_argument("--ranges", type=int, default=default.ranges_per_host, help="on each host")
    parser.add_argument("--gigabytes", type=float, default=default.image_bytes / GB, help="of the image")
    parser.add_argument("--slots", type=int, default=default.slots, help="transfers at a time on each host")
    parser.add_argument("--cores", type=int, default=default.host_cores, help="of each host")
    parser.add_argument("--disk", type=float, default=default.host_disk / GB, help="GB a second that a host writes")
    parser.add_argument("--origin-gbit", type=float, default=8 * default.origin_link / GB, help="the registry's link")
    parser.add_argument("--host-gbit", type=float, default=8 * default.host_link / GB, help="each host's link")
    parser.add_argument("--page", action="store_true", help="write docs/scale.md for these")
    chosen = parser.parse_args(argv)
    numbers = (chosen.hosts, chosen.ranges, chosen.gigabytes, chosen.slots, chosen.cores, chosen.disk)
    if min(*numbers, chosen.origin_gbit, chosen.host_gbit) <= 0:
        parser.error("every number has to be greater than 0")
    site = Site(
        hosts=chosen.hosts,
        ranges_per_host=chosen.ranges,
        image_bytes=chosen.gigabytes * GB,
        slots=chosen.slots,
        host_cores=chosen.cores,
        host_disk=chosen.disk * GB,
        origin_link=chosen.origin_gbit * GB / 8,
        host_link=chosen.host_gbit * GB / 8,
    )
    if chosen.page:
        report.write(site)
    return {
        "ok": True,
        "site": asdict(site),
        "arrangements": {
            name: {**asdict(arrangement(site)), "most_hosts": most_hosts(arrangement, site)}
            for name, arrangement in ARRANGEMENTS.items()
        },
    }
