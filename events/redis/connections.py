"""Connections of a Redis server: how many it takes (`maxclients`), how many there are, and how many agents have.

Read from INFO and CLIENT LIST, where the user may run them. An agent that is connected to Redis itself names its
connections after its installation and range; behind a range gateway it has none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from events.bus import BusRefused
from events.redis.client import Commands

_AGENT = re.compile(r"(?:^| )name=cyroid-images-agent:(?P<agent>[^ ]+?)(?:-reads)?(?: |$)", re.MULTILINE)
_UNPRINTABLE = re.compile(r"[^!-~]")
_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Connections:
    """Connections of a server: `limit` is its maxclients, `of_agents` of those `used` belong to so many `agents`."""

    limit: int
    used: int
    agents: int
    of_agents: int


def agent_name(prefix: str, range_id: str) -> str:
    """The name of an agent's connections. Redis takes printable ASCII alone; what else a prefix has becomes `_`."""
    return _UNPRINTABLE.sub("_", f"cyroid-images-agent:{prefix}:{range_id}")


async def connections(commands: Commands) -> Connections | None:
    """The server's connections now; None where this user may not ask. Raises BusUnavailable."""
    try:
        told, listed = _text(await commands.call("INFO", "clients")), _text(await commands.call("CLIENT", "LIST"))
    except BusRefused:
        return None
    fields = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    limit, used = fields.get("maxclients", ""), fields.get("connected_clients", "")
    if not _NUMBER.fullmatch(limit) or not _NUMBER.fullmatch(used):
        return None  # a server that tells no limit
    names = _AGENT.findall(listed)
    return Connections(limit=int(limit), used=int(used), agents=len(set(names)), of_agents=len(names))


def _text(reply: bytes | str) -> str:
    return reply.decode(errors="replace") if isinstance(reply, bytes) else reply
