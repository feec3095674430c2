"""Push batches: pushes of many images that one request led to.

    {prefix}:push-batch:<id>    PushBatch, kept for 30 days

How far each push is stands in its own record (`pushes`).
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from events.records import Key

KEPT_SECONDS = 30 * 86400.0


class BatchPush(msgspec.Struct, frozen=True, kw_only=True):
    """One push of a batch. `id` is that of its record."""

    reference: str
    id: str


class RefusedPush(msgspec.Struct, frozen=True, kw_only=True):
    """An image for which no push was requested, and why."""

    reference: str
    code: str
    message: str


class PushBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, by whom. `all_missing`: all that the registry lacked then."""

    id: str
    asked_at: datetime
    actor: str = ""
    all_missing: bool = False
    pushes: tuple[BatchPush, ...] = ()
    refused: tuple[RefusedPush, ...] = ()


def batch_key(prefix: str, batch_id: str) -> Key[PushBatch]:
    """The key of a batch's record."""
    return Key(f"{prefix}:push-batch:{batch_id}", PushBatch)
