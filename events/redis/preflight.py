"""Preflight checks of a Redis server: what has to be configured so that nothing gets lost on it.

One line for each problem, with what to do. `stops`: going on would lose events; the others are only logged.
The server is read from INFO and TIME, where the user may run them. What the user may do with a stream is asked by one
of the bus's own scripts, so that a missing right, or scripts that nobody could load, are seen before the first event.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from events.bus import BusRefused
from events.redis.client import Commands
from events.redis.scripts import Script, ScriptsMissing

OLDEST = (7, 0)
SKEW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Concern:
    """One problem of a Redis server."""

    text: str
    stops: bool = False


async def preflight(commands: Commands, rights: Script, stream: str) -> list[Concern]:
    """Check the server, and this user's rights on `stream`. Raises BusUnavailable when there is no answer."""
    found = [*await _server(commands), await _rights(rights, stream)]
    return [concern for concern in found if concern is not None]


async def _server(commands: Commands) -> list[Concern | None]:
    try:
        told = _fields(await commands.call("INFO"))
        seconds, microseconds = await commands.call("TIME")
    except BusRefused:
        return []
    concerns = [_version(told), _eviction(told), _role(told), _append_only(told), _writes(told)]
    return [*concerns, _clock(int(seconds) + int(microseconds) / 1e6, time.time())]


async def _rights(rights: Script, stream: str) -> Concern | None:
    try:
        refused: Sequence[bytes] = await rights(stream, [stream])
    except ScriptsMissing as problem:
        return Concern(f"{problem}: start a service whose Redis user may SCRIPT LOAD first")
    except BusRefused as problem:
        return Concern(
            f"this Redis user may not run the bus's scripts on {stream} ({problem}): allow it EVALSHA and these keys",
            stops=True,
        )
    if not refused:
        return None
    words = ", ".join(word.decode() for word in refused)
    return Concern(
        f"this Redis user may not run {words} on {stream}: give it the rights that docs/security.md lists", stops=True
    )


def _fields(info: bytes | str) -> Mapping[str, str]:
    text = info.decode() if isinstance(info, bytes) else info
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _version(told: Mapping[str, str]) -> Concern | None:
    version = told.get("redis_version", "")
    numbers = tuple(int(part) for part in re.findall(r"[0-9]{1,6}", version)[:2])
    if numbers >= OLDEST:
        return None
    return Concern(
        f"Redis is {version or 'of an unknown version'}; 7.0 is the oldest that works: upgrade it", stops=True
    )


def _eviction(told: Mapping[str, str]) -> Concern | None:
    policy = told.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return None
    return Concern(
        f"Redis drops keys when its memory is full (maxmemory-policy {policy}), events among them:"
        " set maxmemory-policy noeviction",
        stops=True,
    )


def _role(told: Mapping[str, str]) -> Concern | None:
    if told.get("role", "master") == "master":
        return None
    return Concern(f"this Redis is a replica of {told.get('master_host', '?')}: connect to the master, or use Sentinel")


def _append_only(told: Mapping[str, str]) -> Concern | None:
    if told.get("aof_enabled", "1") != "0":
        return None
    return Concern("Redis keeps no append-only file, so its crash loses the last entries: set appendonly yes")


def _writes(told: Mapping[str, str]) -> Concern | None:
    broken = [name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if told.get(name, "ok") != "ok"]
    if not broken:
        return None
    return Concern(f"Redis cannot write to its disk ({', '.join(broken)}): see its log, and whether the disk is full")


def _clock(theirs: float, ours: float) -> Concern | None:
    if abs(theirs - ours) <= SKEW_SECONDS:
        return None
    return Concern(f"Redis' clock and this machine's differ by {abs(theirs - ours):.0f} s: have both set by NTP")
