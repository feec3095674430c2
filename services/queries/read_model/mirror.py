"""The mirror: takes over what changed in the records about once a second, and tells who listens.

A look costs Redis some sorted sets and revisions, whatever the lists are asked for; a row is loaded when its record
changed. Every few minutes everything is looked through, so that what a look missed does not stay wrong. With Redis away
the rows stay and are marked `stale`.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from events.bus import BusError
from events.lease import Bus
from events.records import UnreadableRecord, load_all
from events.streams import Streams
from services.core.images.read_model import ReadModelKeys
from services.core.images.registry_scan import ScanKeys, ScanReport
from services.core.images.registry_statistics import RegistryStatistics
from services.core.store.figures import StoreFigures, figures_key
from services.queries.disk_use import DiskUse
from services.queries.read_model.deployments import Deployments
from services.queries.read_model.host_images import HostImages
from services.queries.read_model.images import RegistryImages
from services.queries.read_model.ingests import Ingests
from services.queries.read_model.plans import Plans
from services.queries.read_model.pushes import Prompts, Pushes
from services.queries.read_model.ranges import Ranges
from services.queries.read_model.record_follower import parts
from services.queries.read_model.rows import RegistryImageRow, Row
from services.queries.read_model.table import Table
from services.queries.read_model.transfers import Transfers
from services.runtime.telemetry import get_logger

log = get_logger(role="read-model")
Kind = Literal["images", "host_images", "deployments", "ranges", "pushes", "prompts", "plans", "ingests"]
LOOK_SECONDS = 1.0
FULL_SECONDS = 300.0
#: Rows are stale when no look ended for so long.
STALE = timedelta(seconds=10)
#: Changes carry the time of the replica that wrote them, and take a moment to be written.
_OVERLAP_SECONDS = 5.0
_AT_ONCE = 200
SCAN_STALE = timedelta(minutes=30)


def _keep_out_of_collections() -> None:
    """Rows live long: Python's garbage collector need not go through them again.

    Ten thousand images made each of its full rounds 0.2 s long, in which no request was answered.
    """
    gc.collect()
    gc.freeze()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one kind that changed, came or went."""

    kind: Kind
    ids: frozenset[str]


class Mirror:
    """The read model in memory. `clock` gives aware times; `listener` is told of every change."""

    def __init__(
        self,
        *,
        bus: Bus,
        streams: Streams,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        listener: Callable[[Change], None] = lambda change: None,
    ) -> None:
        prefix = streams.prefix
        self._bus = bus
        self._clock = clock
        self.listener = listener
        self._keys, self._scans = ReadModelKeys(prefix), ScanKeys(prefix)
        self._figures = figures_key(prefix)
        self.images = RegistryImages()
        self.host_images = HostImages(bus, prefix, self.images)
        self.deployments = Deployments(bus, prefix)
        self.ranges = Ranges(bus, streams, self.images)
        self.transfers = Transfers(bus, prefix)
        self.pushes = Pushes(bus, prefix, self.transfers)
        self.prompts = Prompts(bus, prefix)
        self.ingests = Ingests(bus, prefix)
        self.plans = Plans(bus, prefix, self.images, self.deployments, self.pushes)
        self.figures: StoreFigures | None = None
        self.disk: DiskUse | None = None
        self._unreferenced: tuple[tuple[int, ...], tuple[RegistryImageRow, ...]] = ((), ())
        self.registry_scan: ScanReport | None = None
        self.host_scan: ScanReport | None = None
        self.as_of: datetime | None = None
        self._full_at: datetime | None = None
        self._images_at: datetime | None = None
        self._wanted = asyncio.Event()

    @property
    def stale(self) -> bool:
        """Whether Redis has not answered for a while."""
        return self.as_of is None or self._clock() - self.as_of > STALE

    def row(self, kind: Kind, ident: str) -> Row | None:
        """One row as lists have it; None where it is gone."""
        if kind == "pushes":
            push = self.pushes.table.rows.get(ident)
            return None if push is None else self.pushes.with_progress(push)
        tables: Mapping[Kind, Table[Any]] = {
            "images": self.images.table,
            "host_images": self.host_images.table,
            "deployments": self.deployments.table,
            "ranges": self.ranges.table,
            "prompts": self.prompts.table,
            "plans": self.plans.table,
            "ingests": self.ingests.table,
        }
        row: Row | None = tables[kind].rows.get(ident)
        return row

    def scan_is_stale(self, report: ScanReport | None) -> bool:
        """Whether a scan is too long ago, or the latest one did not come to its end."""
        if self.stale or report is None or report.ended_at is None or report.error is not None:
            return True
        return self._clock() - report.ended_at > SCAN_STALE

    def statistics(self) -> RegistryStatistics:
        """The registry in numbers; its disk's are those that were measured here, or by the collector.

        The collector's are of its last run: what was pushed since is missing in them.
        """
        totals, scan, disk = self.images.totals(), self.registry_scan, self.disk
        if disk is None and self.figures is not None and self.figures.disk_bytes >= totals.stored_bytes:
            disk = DiskUse(self.figures.disk_bytes, self.figures.free_bytes)
        return RegistryStatistics(
            healthy=scan is not None and scan.error is None,
            images=totals.images,
            repositories=totals.repositories,
            layers=totals.layers,
            storage_used_bytes=disk.taken_bytes if disk else totals.stored_bytes,
            logical_bytes=totals.logical_bytes,
            saved_bytes=totals.logical_bytes - totals.stored_bytes,
            storage_measured=disk is not None,
            storage_free_bytes=disk.free_bytes if disk else None,
            error=scan.error if scan else None,
            damaged=totals.damaged,
            as_of=scan.ended_at if scan else None,
            stale=self.scan_is_stale(scan),
        )

    def unreferenced(self) -> tuple[RegistryImageRow, ...]:
        """Images in the registry that no range has or should have, and that no deployment or plan names."""
        tables = (self.images.table, self.ranges.table, self.deployments.table, self.plans.table)
        versions = tuple(table.version for table in tables)
        if self._unreferenced[0] != versions:
            names, ids = self.ranges.needs()
            names |= self.plans.names()
            for wants in self.deployments.under_way().values():
                names.update(wants)
            rows = (row for _, row in self.images.table.walk("name"))
            found = tuple(row for row in rows if row.reference not in names and row.image_id not in ids)
            self._unreferenced = versions, found
        return self._unreferenced[1]

    def missing_in_registry(self) -> list[str] | None:
        """Tags of the host's engine that the registry lacks or has other content of; None where that may be old."""
        if self.scan_is_stale(self.host_scan):
            return None
        return sorted(row.reference for row in self.host_images.table.rows.values() if row.registry in ("no", "other"))

    def measured(self, disk: DiskUse | None) -> None:
        """Take over what the registry's disk says."""
        self.disk = disk

    def wake(self) -> None:
        """Ask for a look soon: something was heard of."""
        self._wanted.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._wanted.clear()
            full_at = self._full_at
            try:
                await self.look()
                if self._full_at != full_at:
                    _keep_out_of_collections()
            except (BusError, UnreadableRecord, TimeoutError) as problem:
                log.warning("the read model cannot be brought up to date", reason=str(problem))
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wanted.wait()
                    await asyncio.sleep(LOOK_SECONDS / 10)  # what belongs together comes together
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Take over what changed since the last look. Raises BusError."""
        now = self._clock()
        full = self._full_at is None or (now - self._full_at).total_seconds() >= FULL_SECONDS
        if full:
            await self.transfers.load(now)
        images = await self._look_at_images(now, full=full)
        deployments = await self.deployments.sync(now, full=full)
        ranges, held = await self.ranges.sync(self.deployments.under_way())
        pushes = await self.pushes.sync(now, full=full)
        prompts = await self.prompts.sync()
        plans = await self.plans.sync()
        ingests = await self.ingests.sync(now, full=full)
        host_images = await self.host_images.sync()
        reports = await load_all(self._bus, [self._scans.registry, self._scans.host])
        self.registry_scan, self.host_scan = (report.value for report in reports)
        self.figures = (await self._figures.load(self._bus)).value
        if full:
            self._full_at = now
        self.as_of = now
        self._tell("images", images | held)
        self._tell("deployments", deployments)
        self._tell("ranges", ranges)
        self._tell("pushes", pushes)
        self._tell("prompts", prompts)
        self._tell("plans", plans)
        self._tell("ingests", ingests)
        self._tell("host_images", host_images)

    def _tell(self, kind: Kind, ids: set[str]) -> None:
        if ids:
            self.listener(Change(kind=kind, ids=frozenset(ids)))

    async def _look_at_images(self, now: datetime, *, full: bool) -> set[str]:
        """Load the images that were written or deleted since the last look."""
        if full or self._images_at is None:
            listed = set(await self._bus.members(self._keys.images))
            asked = listed | self.images.names()
        else:
            low = self._images_at.timestamp() - _OVERLAP_SECONDS
            asked = set(await self._bus.members(self._keys.image_changes, low=low))
        changed: set[str] = set()
        for few in parts(sorted(asked), _AT_ONCE):
            entries = await load_all(self._bus, [self._keys.image(name) for name in few])
            layers = await load_all(self._bus, [self._keys.layers(name) for name in few])
            for name, entry, its in zip(few, entries, layers, strict=True):
                if entry.value is None:
                    changed |= self.images.remove(name) if name in self.images.names() else set()
                else:
                    changed |= self.images.put(entry.value, its.value)
        self._images_at = now
        return changed
