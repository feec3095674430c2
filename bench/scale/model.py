"""Model of distribution: how long it takes until every range of every host has an image, and what bounds it.

Transfers are streams, so the slowest resource on the way decides: the makespan is the largest quotient of bytes (or
processor seconds) and rate over all resources, and one layer more for each cache that content passes first. What is
measured comes from docs/measurements.md; links and machines are assumptions that a caller changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured on two cores: docs/measurements.md, and the last one by `bench transfer --mounted`.

    pull_seconds_per_gb      one range's engine alone: 9.915 s for 1.4 GB
    pull_cpu_per_gb          four ranges' engines: 53.7 processor seconds for 4 x 1.4 GB
    serve_cpu_per_gb         a registry's share of serving: 7.7 s for one push of 1.4 GB (4.07 s) and four pulls
    mount_seconds            until four running ranges at once have an image of the host, by mounting: 0.51 s at load 5
    """

    pull_seconds_per_gb: float = 9.915 / 1.4
    pull_cpu_per_gb: float = 53.7 / (4 * 1.4)
    serve_cpu_per_gb: float = (7.7 - 4.07) / (4 * 1.4)
    mount_seconds: float = 0.51


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An installation. Rates are bytes per second.

    slots         transfers at a time on each host (CYROID_EXTRACTIONS_LIMIT)
    origin_link   of the registry that has everything; origin_cores serve it
    host_link     of each host; host_cores unpack there, host_disk takes what they write
    layer_bytes   the largest layer: a cache that stores first is so much behind
    """

    hosts: int = 200
    ranges_per_host: int = 50
    image_bytes: float = 20 * GB
    layer_bytes: float = 2 * GB
    slots: int = 4
    origin_link: float = 1.25 * GB
    origin_cores: int = 8
    host_link: float = 1.25 * GB
    host_cores: int = 32
    host_disk: float = 1.0 * GB
    hosts_per_rack: int = 16
    cold_factor: float = 1.05
    peer_efficiency: float = 0.6
    measured: Measured = Measured()

    @property
    def ranges(self) -> int:
        return self.hosts * self.ranges_per_host


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """How long it takes and what bounds it. `origin_bytes` leave the registry while ranges wait.

    host_bytes   what each host writes, in its ranges and in its cache
    shares       the seconds that each resource is busy
    """

    seconds: float
    bound: str
    origin_bytes: float
    host_bytes: float
    shares: dict[str, float]


def unpacking(site: Site) -> dict[str, float]:
    """Seconds that a host's own resources are busy until all of its ranges have pulled and unpacked the image."""
    total = site.ranges_per_host * site.image_bytes
    at_once = min(site.slots, site.ranges_per_host)
    return {
        "slots": total / GB * site.measured.pull_seconds_per_gb / at_once,
        "host's cores": total / GB * site.measured.pull_cpu_per_gb / site.host_cores,
        "host's disk": total / site.host_disk,
    }


def _serving(site: Site, served: float) -> dict[str, float]:
    return {
        "origin's link": served / site.origin_link,
        "origin's cores": served / GB * site.measured.serve_cpu_per_gb / site.origin_cores,
    }


def _estimate(site: Site, shares: dict[str, float], *, origin: float, cached: float, hops: int) -> Estimate:
    bound = max(shares, key=lambda name: shares[name])
    behind = hops * site.layer_bytes / min(site.origin_link, site.host_link)
    written = site.ranges_per_host * site.image_bytes + cached
    return Estimate(seconds=shares[bound] + behind, bound=bound, origin_bytes=origin, host_bytes=written, shares=shares)


def one_registry(site: Site) -> Estimate:
    """Every range pulls from the one registry."""
    served = site.ranges * site.image_bytes
    link = {"host's link": site.ranges_per_host * site.image_bytes / site.host_link}
    return _estimate(site, {**_serving(site, served), **link, **unpacking(site)}, origin=served, cached=0.0, hops=0)


def flat_caches(site: Site) -> Estimate:
    """A cache on each host, which fetches every blob once from the registry."""
    served = site.hosts * site.image_bytes * site.cold_factor
    link = {"host's link": site.image_bytes * site.cold_factor / site.host_link}
    shares = {**_serving(site, served), **link, **unpacking(site)}
    return _estimate(site, shares, origin=served, cached=site.image_bytes, hops=1)


def two_levels(site: Site) -> Estimate:
    """A cache for each rack in front of those of its hosts."""
    racks = math.ceil(site.hosts / site.hosts_per_rack)
    in_rack = min(site.hosts, site.hosts_per_rack)
    served = racks * site.image_bytes * site.cold_factor
    links = {
        "rack's link": in_rack * site.image_bytes * site.cold_factor / site.host_link,
        "host's link": site.image_bytes * site.cold_factor / site.host_link,
    }
    shares = {**_serving(site, served), **links, **unpacking(site)}
    return _estimate(site, shares, origin=served, cached=site.image_bytes, hops=2)


def peer_to_peer(site: Site) -> Estimate:
    """Hosts give one another pieces (Dragonfly, Kraken, Spegel behind the registry's name).

    The registry gives each piece about twice; every host sends as much as it receives, at `peer_efficiency` of its
    link, and a piece needs as many rounds to come everywhere as the number of hosts doubles.
    """
    served = min(2, site.hosts) * site.image_bytes
    rounds = math.log2(max(site.hosts, 2))
    links = {"peers' links": 2 * site.image_bytes / (site.host_link * site.peer_efficiency)}
    shares = {**_serving(site, served), **links, **unpacking(site)}
    found = _estimate(site, shares, origin=served, cached=site.image_bytes, hops=0)
    piece = 16e6 / (site.host_link * site.peer_efficiency)
    return replace(found, seconds=found.seconds + rounds * piece)


def seeded(site: Site) -> Estimate:
    """Content was brought to each host before anybody waits, and is shown to the ranges by mounting.

    Nothing is unpacked in a range: each range's image is one mount, `slots` at a time, and one copy on the host's disk.
    """
    at_once = min(site.slots, site.ranges_per_host)
    shares = {"slots": site.ranges_per_host * site.measured.mount_seconds / at_once}
    return Estimate(
        seconds=shares["slots"], bound="slots", origin_bytes=0.0, host_bytes=site.image_bytes, shares=shares
    )


#: In the order of what they need beside this project.
ARRANGEMENTS: dict[str, Callable[[Site], Estimate]] = {
    "one registry": one_registry,
    "flat caches": flat_caches,
    "two levels": two_levels,
    "peer to peer": peer_to_peer,
    "seeded, mounted": seeded,
}
#: What a host does itself: with these as the bound, more hosts take no longer.
OWN = frozenset({"slots", "host's cores", "host's disk", "host's link", "peers' links"})


def most_hosts(arrangement: Callable[[Site], Estimate], site: Site, *, limit: int = 1_000_000) -> int | None:
    """With how many hosts what they share becomes the bound; None: not with `limit` of them. By bisection."""

    def is_own(hosts: int) -> bool:
        return arrangement(replace(site, hosts=hosts)).bound in OWN

    if is_own(limit):
        return None
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_own(middle) else (low, middle)
    return low
