"""Growth of the registry's store: samples of its figures over time, fewer of them the older they are."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from events.records import Key
from services.core.store.figures import StoreFigures

#: Younger than this one sample for each hour is kept, older than this one for each day.
_HOURLY = timedelta(days=2)
#: Two years of days, and the hours.
_SAMPLES_LIMIT = 730 + 48


class StoreSample(msgspec.Struct, frozen=True, kw_only=True):
    """What the store took at one moment."""

    at: datetime
    stored_bytes: int
    logical_bytes: int
    disk_bytes: int
    free_bytes: int


class StoreGrowth(msgspec.Struct, frozen=True, kw_only=True):
    """The record `{prefix}:store:growth`: samples, the oldest first."""

    samples: tuple[StoreSample, ...] = ()


def growth_key(prefix: str) -> Key[StoreGrowth]:
    """Where the collector writes them."""
    return Key(f"{prefix}:store:growth", StoreGrowth)


def grown(growth: StoreGrowth, figures: StoreFigures) -> StoreGrowth:
    """With a sample of `figures`, and without those that are too many: the last of an hour, or of a day, stays."""
    sample = StoreSample(
        at=figures.at,
        stored_bytes=figures.stored_bytes,
        logical_bytes=figures.logical_bytes,
        disk_bytes=figures.disk_bytes,
        free_bytes=figures.free_bytes,
    )
    kept: dict[str, StoreSample] = {}
    for one in sorted((*growth.samples, sample), key=lambda one: one.at):
        period = "%Y-%m-%d %H" if figures.at - one.at < _HOURLY else "%Y-%m-%d"
        kept[one.at.strftime(period)] = one
    return StoreGrowth(samples=tuple(kept.values())[-_SAMPLES_LIMIT:])
