"""Where tests get the simulation from: a cluster in memory, in time that is skipped (`bench.simulation`)."""

from __future__ import annotations

from bench.simulation.cluster import SETTINGS, Cluster, eventually, loop_clock
from bench.simulation.run import published
from bench.simulation.time_skipping import FakedLoop

__all__ = [
    "SETTINGS",
    "Cluster",
    "FakedLoop",
    "eventually",
    "loop_clock",
    "published",
]
