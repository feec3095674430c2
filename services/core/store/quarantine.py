"""Quarantine as a record: what a collection set aside, and until when it can be brought back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from events.records import Key

#: So many are listed, those that go first.
LISTED_LIMIT = 1000


class QuarantinedBlob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A blob, or with `repositories` a manifest that each of these had. After `until` a collection may free it."""

    digest: str
    size_bytes: int
    since: datetime
    until: datetime
    repositories: tuple[str, ...] = ()


class Quarantine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record `{prefix}:store:quarantine`, written after every collection. `blobs` counts all of them."""

    at: datetime
    blobs: int = 0
    size_bytes: int = 0
    listed: tuple[QuarantinedBlob, ...] = ()


def quarantine_key(prefix: str) -> Key[Quarantine]:
    """Where the collector writes it."""
    return Key(f"{prefix}:store:quarantine", Quarantine)


def quarantine(found: Iterable[QuarantinedBlob], at: datetime) -> Quarantine:
    """All that was found, the first to go first."""
    blobs = sorted(found, key=lambda one: (one.until, one.digest))
    return Quarantine(
        at=at,
        blobs=len(blobs),
        size_bytes=sum(one.size_bytes for one in blobs),
        listed=tuple(blobs[:LISTED_LIMIT]),
    )
