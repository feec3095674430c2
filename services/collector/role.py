"""Role `collector`: deletes tags, collects unreferenced blobs, scrubs, and records what the registry's storage costs.

consumes  registry.collect_requested, image.delete_requested, registry.restore_requested, registry.check_requested,
          registry.retention_requested
emits     registry.collected, image.deleted, image.delete_planned, image.delete_refused, registry.restored,
          registry.retention_planned, image.delete_requested (retention), image.push_requested (repair),
          registry.collect_requested and registry.retention_requested (its own schedule, and a full disk),
          registry.disk_pressure, image.reclaim_requested (a full disk), registry.collect_progress

It is the one role that may write the registry's storage. It needs no engine, and of the registry's API only an answer
to the probe for a cache before a collection. The schedule is a command like any other, with an id that every replica
makes alike, so a collection runs once per period however many replicas there are, and one that a killed replica began
is begun again by another.

deletions   images by tag or digest      retention   the rules that delete by age, number and size
restoring   quarantine and checks        sweep       the collection itself
pressure    the disk, before it is full  progress    how far a collection is
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypedDict
from uuid import NAMESPACE_URL, uuid5

from events.bus import BusClient, BusError, Delivery, Outcome, Post, RecordWrite
from events.envelope import Envelope
from events.messages import (
    CheckRequested,
    CollectRequested,
    Failure,
    ImageDeleteRequested,
    RegistryCollected,
    RestoreRequested,
    RetentionRequested,
)
from events.records import ANY
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.task_group import TaskGroup
from services.collector.background import in_background
from services.collector.cache_probe import check_no_cache
from services.collector.deletions import Deletions
from services.collector.measure import Measured, measure
from services.collector.pins import mounted_digests, pinned_digests
from services.collector.pressure import storage_watch
from services.collector.progress import CollectionProgress, Step
from services.collector.repairs import repairs
from services.collector.restoring import Restoring
from services.collector.retention import Retention
from services.collector.scrub import Scrub, ScrubResult
from services.collector.storage import BlobState, RegistryStorage
from services.collector.sweep import SETTLE_SECONDS, CollectionPolicy, CollectionResult, Sweep
from services.collector.uploads import PURGE_SECONDS, purge_uploads
from services.core.store.figures import details_key, figures_key
from services.core.store.growth import StoreGrowth, grown, growth_key
from services.core.store.intents import intents_key, lapsed
from services.core.store.mark import Mark
from services.core.store.quarantine import quarantine_key
from services.ports import Registry
from services.runtime import metrics
from services.runtime.telemetry import get_logger


class _Shared(TypedDict):
    """What the parts of the role have in common."""

    bus: BusClient
    streams: Streams
    source: str
    storage: RegistryStorage
    sweep: Sweep
    clock: Callable[[], float]


class Collector:
    """One replica. `period_seconds` 0: collect by hand only."""

    name = "collector"

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        source: str,
        storage: RegistryStorage,
        registry: Registry,
        policy: CollectionPolicy,
        period_seconds: float,
        scrub_bytes_per_second: float,
        free_percent: float = 0.0,
        lease_seconds: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._source = source
        self._storage = storage
        self._registry = registry
        self._period = period_seconds
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._disk = storage_watch(
            bus=bus, streams=streams, source=source, storage=storage, limit_percent=free_percent, clock=clock
        )
        self._scrub = Scrub(storage, bytes_per_second=scrub_bytes_per_second)
        self._sweep = Sweep(
            storage,
            pins=lambda: pinned_digests(bus, streams.prefix),
            mounted=lambda: mounted_digests(bus, streams.prefix),
            intents=self._intents,
            policy=policy,
            clock=clock,
        )
        shared: _Shared = {
            "bus": bus,
            "streams": streams,
            "source": source,
            "storage": storage,
            "sweep": self._sweep,
            "clock": clock,
        }
        self._deletions = Deletions(**shared)
        self._retention = Retention(**shared)
        self._restoring = Restoring(**shared, scrub=self._scrub, keep_seconds=policy.keep_seconds)
        self._log = get_logger(role=self.name)

    def subscriptions(self) -> Sequence[Subscription]:
        deletions, restoring, retention = self._deletions, self._restoring, self._retention
        return (
            Subscription(
                group=self.name,
                streams=lambda: (self._streams.images,),
                handlers=Handlers()
                .on(CollectRequested, self._collect_requested, key=lambda _: "collect", give_up=self._collect_failed)
                .on(ImageDeleteRequested, deletions.requested, key=_of_reference, give_up=deletions.failed)
                .on(RestoreRequested, restoring.restore_requested, key=lambda _: "single", give_up=restoring.failed)
                .on(CheckRequested, restoring.check_requested, key=lambda _: "single", give_up=None)
                .on(RetentionRequested, retention.requested, key=lambda _: "retention", give_up=retention.failed),
                slots=4,  # a scrub takes hours, and nobody's deletion waits for it
                lease_seconds=self._lease_seconds,
                dead_stream=self._streams.dead,
            ),
        )

    async def run(self) -> None:
        """Purge uploads, and ask for collections. Raises BadInput where the storage is not a registry's."""
        await asyncio.to_thread(self._storage.check)
        async with TaskGroup() as tasks:
            tasks.create_task(self._purge_uploads())
            tasks.create_task(self._disk.run())
            tasks.create_task(self._ask())

    async def _purge_uploads(self) -> None:
        while True:
            purged = await in_background(purge_uploads, self._storage, now=self._clock())
            if purged.uploads:
                self._log.warning("abandoned uploads were removed", uploads=purged.uploads, freed=purged.freed_bytes)
            await asyncio.sleep(PURGE_SECONDS)

    async def _ask(self) -> None:
        """For a collection, once in every period."""
        while self._period:
            number = int(self._clock() // self._period)
            requests = (
                self._scheduled(f"retention/{number}", RetentionRequested()),
                self._scheduled(f"collect/{number}", CollectRequested()),
            )
            with suppress(BusError):  # Redis is unavailable: the next round
                await self._bus.publish(self._streams.images, *requests)
            await asyncio.sleep(max(1.0, (number + 1) * self._period - self._clock()))

    def _scheduled(self, name: str, message: CollectRequested | RetentionRequested) -> Envelope:
        """The same entry from every replica."""
        name_id = str(uuid5(NAMESPACE_URL, name))
        return Envelope(id=name_id, message=message, source=self.name, subject="registry")

    # ---- collecting ----

    async def _collect_requested(self, delivery: Delivery[CollectRequested]) -> Outcome:
        request, started = delivery.message, time.monotonic()
        if not request.dry_run:
            await check_no_cache(self._registry, self._storage)
        followed = CollectionProgress(self._bus, self._streams, self._source, delivery.envelope)
        async with followed.publishing():
            result, checked, mark, blobs = await self._collect(request, followed.step)
            followed.step("measuring", 0, len(blobs), 0)
            measured = await in_background(measure, self._storage, mark, blobs, self._now())
        self._count(result, time.monotonic() - started)
        said = _collected(result, checked, dry_run=request.dry_run, seconds=time.monotonic() - started)
        self._log.info("collected", dry_run=request.dry_run, quarantined=result.quarantined, freed=result.freed_bytes)
        for problem in (*result.damaged, *result.broken_tags, *checked.damaged, *checked.missing):
            self._log.warning("the registry's storage is damaged", what=problem)
        affected = repairs(delivery.envelope, checked.affected, streams=self._streams, source=self._source)
        over = Outcome() if request.dry_run else await self._deletions.settle(mark)
        return Outcome(
            posts=(self._collected(delivery, said), *affected, *over.posts),
            records=(*await self._recorded(measured, blobs), *over.records),
            index=(*lapsed(self._streams.prefix, await self._lapsed_intents()).index, *over.index),
        )

    async def _collect(
        self, request: CollectRequested, step: Step
    ) -> tuple[CollectionResult, ScrubResult, Mark, list[BlobState]]:
        """What was done, or would be, and the mark and the blobs afterwards. Sizes are compared at every collection;
        content is hashed when that was asked for."""
        step("marking", 0, 0, 0)
        mark, blobs, planned = await self._sweep.plan()
        if request.dry_run:
            return planned, ScrubResult(), mark, blobs
        checked = await self._scrub.check_sizes(mark, blobs)
        if request.scrub:
            checked = checked.and_also(await self._scrub.scrub(mark, blobs, step=step))
        keep = None if request.keep_seconds is None else max(SETTLE_SECONDS, request.keep_seconds)
        result = await self._sweep.collect(keep_seconds=keep, step=step)
        mark, blobs, _ = await self._sweep.plan()
        return result, checked, mark, blobs

    async def _recorded(self, measured: Measured, blobs: list[BlobState]) -> tuple[RecordWrite, ...]:
        """The figures now, one more sample of how they grow, and what is in quarantine."""
        prefix = self._streams.prefix
        before = (await growth_key(prefix).load(self._bus)).value or StoreGrowth()
        aside = await in_background(self._restoring.listed, blobs)
        return (
            quarantine_key(prefix).write(aside, expected=ANY),
            figures_key(prefix).write(measured.figures, expected=ANY),
            details_key(prefix).write(measured.details, expected=ANY),
            growth_key(prefix).write(grown(before, measured.figures), expected=ANY),
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _count(self, result: CollectionResult, seconds: float) -> None:
        for kind in ("quarantined", "restored", "removed"):
            metrics.collected_blobs.labels(kind=kind).inc(getattr(result, kind))
        metrics.collected_bytes.inc(result.freed_bytes)
        metrics.collection_seconds.observe(seconds)
        metrics.collection_last.set(self._clock())

    def _collect_failed(self, delivery: Delivery[CollectRequested], failure: Failure) -> Outcome:
        said = RegistryCollected(dry_run=delivery.message.dry_run, error=failure)
        return Outcome(posts=(self._collected(delivery, said),))

    # ---- inside ----

    def _collected(self, delivery: Delivery[CollectRequested], said: RegistryCollected) -> Post:
        return Post(self._streams.images, delivery.envelope.causes(said, source=self._source, subject="registry"))

    async def _intents(self) -> Collection[str]:
        return await self._bus.members(intents_key(self._streams.prefix), low=self._clock())

    async def _lapsed_intents(self) -> list[str]:
        return (await self._bus.members(intents_key(self._streams.prefix), high=self._clock()))[:1000]


def _of_reference(delivery: Delivery[ImageDeleteRequested]) -> str:
    return delivery.message.reference


def _collected(result: CollectionResult, checked: ScrubResult, *, dry_run: bool, seconds: float) -> RegistryCollected:
    return RegistryCollected(
        dry_run=dry_run,
        candidates=result.candidates,
        candidate_bytes=result.candidate_bytes,
        quarantined=result.quarantined,
        restored=result.restored,
        removed=result.removed,
        freed_bytes=result.freed_bytes,
        damaged=(*result.damaged, *(f"sha256:{digest}" for digest in (*checked.damaged, *checked.missing)))[:100],
        seconds=round(seconds, 3),
    )
