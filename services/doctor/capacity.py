"""Capacity of Redis: how many ranges its connections are enough for, from what is connected now."""

from __future__ import annotations

from events.redis.connections import Connections
from services.doctor.findings import Note, Wrong

#: Connections of an agent without a range gateway, as `bench idle` measured: for commands, and for a read that waits.
PER_AGENT = 2.0
#: Shares of maxclients from which on connections are few, and too few.
NEARLY_FULL = 0.8
FULL = 0.95
_ADVICE = "raise maxclients of Redis (and its limit of open files), or let agents connect through range gateways"


def range_ceiling(found: Connections) -> int:
    """How many ranges with agents without a gateway this Redis can carry, beside all else that is connected."""
    each = found.of_agents / found.agents if found.agents else PER_AGENT
    others = found.used - found.of_agents
    return max(0, int((found.limit - others) / each))


def check_connections(found: Connections | None) -> str:
    """What is well with the connections of Redis. Raises Note where few are left, Wrong where hardly any are."""
    if found is None:
        return "its connections cannot be counted: this user may not run INFO and CLIENT LIST"
    each = f"{found.of_agents / found.agents:.1f}" if found.agents else f"{PER_AGENT:g}"
    text = (
        f"{found.used} of {found.limit} connections of Redis are in use, {found.of_agents} of them by {found.agents}"
        f" agents without a range gateway; at {each} for each it carries {range_ceiling(found):,} such ranges"
        " (ranges behind a gateway have none)"
    )
    if found.used >= FULL * found.limit:
        raise Wrong(text, _ADVICE)
    if found.used >= NEARLY_FULL * found.limit:
        raise Note(text, _ADVICE)
    return text
