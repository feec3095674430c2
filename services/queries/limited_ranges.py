"""Ranges that exceeded a limit of their gateway: records that the gateway writes and `doctor` reads.

{prefix}:limited:<range_id>     LimitedRange, kept for a day after the last time
{prefix}:index:limited          range ids by that time
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

import msgspec

from events.bus import BusClient
from events.malformed import MALFORMED

KEPT_SECONDS = 86400.0


class LimitedRange(msgspec.Struct, frozen=True, kw_only=True):
    """`times` is how often the range exceeded each limit since its gateway started; `cut_off` how often it was
    disconnected.
    """

    range_id: str
    last: datetime
    limit: str
    times: dict[str, int]
    cut_off: int


def record_key(prefix: str, range_id: str) -> str:
    """Where a range's record is."""
    return f"{prefix}:limited:{range_id}"


def index_key(prefix: str) -> str:
    """Which ranges have one, by the time of the last entry."""
    return f"{prefix}:index:limited"


async def limited_ranges(bus: BusClient, prefix: str, *, since: float) -> list[LimitedRange]:
    """Ranges that exceeded a limit after `since` (UNIX seconds). Raises BusError."""
    names = await bus.members(index_key(prefix), low=since)
    records = await bus.load_many([record_key(prefix, name) for name in names])
    found = []
    for record in records:
        with suppress(*MALFORMED):  # of another version: it says nothing
            if record is not None:
                found.append(msgspec.json.decode(record.value, type=LimitedRange))
    return found
