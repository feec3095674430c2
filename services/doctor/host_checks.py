"""Check of the hosts of an installation: whether each sends heartbeats, and its engine answers."""

from __future__ import annotations

from collections.abc import Sequence

from services.doctor.findings import Note, Wrong
from services.queries.known_hosts import HostRow

_SHOWN = 5


def check_hosts(rows: Sequence[HostRow]) -> str:
    """What is well with the hosts. Raises Wrong where an engine does not answer, Note where a host is away."""
    if not rows:
        return "none has reported yet: each does by its registry-pusher"
    there = [row for row in rows if row.state == "alive"]
    text = f"{len(there)} of {len(rows)} are there"
    broken = [f"{row.host} ({row.error})" for row in there if row.error]
    if broken:
        raise Wrong(f"{text}; the engine does not answer: {_few(broken)}", "start the engine there")
    away = [row.host for row in rows if row.state == "away"]
    if away:
        advice = "start their registry-pushers; for one that is gone: cyroid-images hosts forget HOST"
        raise Note(f"{text}; no heartbeat from {_few(away)}: what only they hold cannot be pushed", advice)
    return text


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
