"""Zstd support of the ranges: whether the engine of every known range reads zstd layers, as reported by its agent."""

from __future__ import annotations

from events.bus import BusClient
from events.records import load_values
from services.core.ranges.ranges import RangeKeys


async def all_ranges_read_zstd(bus: BusClient, prefix: str) -> bool:
    """Whether all do.

    False while no range is known: an encoding is fixed for ever, and the first range may be an old one.
    """
    keys = RangeKeys(prefix)
    range_ids = await bus.members(keys.known_index)
    ranges = await load_values(bus, [keys.known(range_id) for range_id in range_ids])
    return bool(ranges) and all("zstd" in one.abilities for one in ranges)
