"""Watch of the disk that the registry's storage is on. Room is made in the order of what can be had again:

retention    what the rules do not keep is deleted
collection   what is unreferenced is set aside, and quarantine lasts ten minutes instead of a day
reclaim      the host engine's copies that a rule allows go, at once: often the same disk
"""

from __future__ import annotations

from collections.abc import Callable

from events.bus import BusClient
from events.messages import CollectRequested, ReclaimRequested, RetentionRequested
from events.streams import Streams
from services.collector.storage import RegistryStorage
from services.collector.sweep import SETTLE_SECONDS
from services.core.store.pressure import disk_state_key
from services.runtime import metrics
from services.runtime.disk_watch import DiskWatch


def storage_watch(
    *,
    bus: BusClient,
    streams: Streams,
    source: str,
    storage: RegistryStorage,
    limit_percent: float,
    clock: Callable[[], float],
) -> DiskWatch:
    """One replica's watch of the storage's disk. `limit_percent` 0: nobody watches."""
    return DiskWatch(
        bus=bus,
        streams=streams,
        source=source,
        key=disk_state_key(streams.prefix),
        space=storage.space,
        limit_percent=limit_percent,
        room=(
            RetentionRequested(),
            CollectRequested(keep_seconds=SETTLE_SECONDS),
            ReclaimRequested(patterns=("*",), why="pressure"),
        ),
        clock=clock,
        seen=_measured,
    )


def _measured(free_bytes: int, low: bool) -> None:
    metrics.store_free_bytes.set(free_bytes)
    metrics.store_pressure.set(low)
