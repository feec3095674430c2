"""Whether every range that is known has an engine that reads zstd layers, as their agents said when they came up."""

from __future__ import annotations

import msgspec

from events.bus import Speaker
from services.core.ranges import KnownRange, RangeKeys


async def all_ranges_read_zstd(speaker: Speaker, prefix: str) -> bool:
    """False also while no range is known: a layer keeps its form for ever, and the first range may be an old one."""
    keys = RangeKeys(prefix)
    range_ids = await speaker.members(keys.known_index)
    records = await speaker.load_many([keys.known(range_id) for range_id in range_ids])
    ranges = [msgspec.json.decode(record.value, type=KnownRange) for record in records if record is not None]
    return bool(ranges) and all("zstd" in one.abilities for one in ranges)
