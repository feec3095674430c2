"""Consumer group status: the reply of groups.lua as structures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from events.lease import GroupStatus, PendingEntry
from events.memory.store import DEFERRED, parse


def read_groups(reply: Sequence[Any]) -> list[GroupStatus]:
    """The status of each group, from the reply of groups.lua."""
    now_ms, groups = reply
    return [_group(now_ms, group) for group in groups]


def _group(now_ms: int, reply: Sequence[Any]) -> GroupStatus:
    stream, name, lag, pending, deferred, unacked, undelivered, entries = reply
    return GroupStatus(
        stream=stream.decode(),
        group=name.decode(),
        lag=None if lag < 0 else lag,
        pending=pending,
        deferred=deferred,
        oldest_unacked_seconds=_age(now_ms, unacked),
        oldest_undelivered_seconds=_age(now_ms, undelivered),
        entries=[_entry(now_ms, entry) for entry in entries],
    )


def _entry(now_ms: int, reply: Sequence[Any]) -> PendingEntry:
    entry_id, owner, idle_ms, deliveries, progress, lease_ms = reply
    return PendingEntry(
        entry_id=entry_id.decode(),
        owner=None if owner == DEFERRED.encode() else owner.decode(),
        idle_seconds=idle_ms / 1000,
        deliveries=deliveries,
        age_seconds=_age(now_ms, entry_id),
        progress=progress or None,
        lease_left_seconds=(int(lease_ms) - idle_ms) / 1000 if lease_ms else None,
    )


def _age(now_ms: int, entry_id: bytes) -> float:
    return max(0.0, (now_ms - parse(entry_id.decode())[0]) / 1000) if entry_id else 0.0
