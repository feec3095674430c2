"""Disk pressure: when a disk counts as low, when it is over, and when room is made again. Pure."""

from __future__ import annotations

import msgspec

from events.records import Key

#: Over once there is so much more than the limit, so that the alarm does not come and go with each push.
_OVER = 1.25


class DiskState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record `{prefix}:store:disk`, and `{prefix}:host-disk:<host>` of the disk of a host's engine.

    `low` since when, and how often room was made since (`rounds`, `made_at`). `free_bytes` of `total_bytes` were free
    when the state last changed; while a disk is low, at each round.
    """

    low: bool = False
    since: float = 0.0
    rounds: int = 0
    made_at: float = 0.0
    free_bytes: int = 0
    total_bytes: int = 0


def disk_state_key(prefix: str) -> Key[DiskState]:
    """Where the collector writes it."""
    return Key(f"{prefix}:store:disk", DiskState)


def host_disk_key(prefix: str, host: str) -> Key[DiskState]:
    """Where a host's registry-pusher writes that of its engine's disk."""
    return Key(f"{prefix}:host-disk:{host}", DiskState)


def disk_state(
    before: DiskState, space: tuple[int, int], limit_percent: float, *, now: float, again_seconds: float
) -> DiskState:
    """The state after a look, an equal one where nothing is to be done. `space` is what is free, and all there is."""
    free, total = space
    limit = total * limit_percent / 100
    seen = DiskState(since=now, free_bytes=free, total_bytes=total)
    if not before.low:
        return msgspec.structs.replace(seen, low=True, rounds=1, made_at=now) if free < limit else before
    if free >= limit * _OVER:
        return seen
    if now - before.made_at >= again_seconds:
        return msgspec.structs.replace(seen, low=True, since=before.since, rounds=before.rounds + 1, made_at=now)
    return before
