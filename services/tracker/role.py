"""The role `tracker`: the read model of images and ranges, and a relay of ranges' progress to a shared stream.

consumes  image.built, image.imported, image.promoted, image.push_requested, image.pushed, image.push_failed,
          image.push_skipped, image.deleted, deployment.succeeded, deployment.failed, deployment.cancelled,
          agent.started, agent.images_changed
emits     transfer.progress

It decides nothing: its records (`services.core.images.read_model`) are made from messages, and from slow scans of the
registry and of the host's engine; they may be deleted at any time.

**Progress of ranges is hostile.** What a range says is copied under that range's own id, and only for pulls and loads
of transfers, so that no range can speak of another's, or of a push.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from events.bus import NOTHING, BusClient, BusError, Delivery, IndexWrite, Outcome
from events.messages import (
    AgentStarted,
    DeploymentCancelled,
    DeploymentEnded,
    DeploymentFailed,
    DeploymentSucceeded,
    ImageBuilt,
    ImageDeleted,
    ImageImported,
    ImagePromoted,
    ImagePushed,
    ImagePushFailed,
    ImagesChanged,
    PushRequested,
    PushSkipped,
)
from events.records import ANY, UnreadableRecord
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.task_group import TaskGroup
from services.core.images.read_model import (
    ImageLayers,
    ImageUse,
    RangeInventory,
    ReadModelKeys,
    RegistryEntry,
    deleted,
)
from services.core.ranges.limits import RangeLimits
from services.core.ranges.ranges import believed
from services.errors import BadInput
from services.ports import Engine, Registry
from services.queries.ranges import FIND_SECONDS, RangeFinder
from services.tracker.host_scan import HostScanner
from services.tracker.progress_relay import ProgressRelay
from services.tracker.push_records import PushRecorder
from services.tracker.registry_scan import Scanner
from services.tracker.transfer_records import TransferRecorder

#: How often a tracker looks whether it is time for a scan.
SCAN_LOOK_SECONDS = 10.0


class Tracker:
    """One replica. Several share the work on records; one of them is enough for progress."""

    name = "tracker"

    def __init__(
        self,
        *,
        bus: BusClient,
        streams: Streams,
        registry: Registry,
        engine: Engine,
        scan_seconds: float = 300.0,
        lease_seconds: float = 30.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._keys = ReadModelKeys(streams.prefix)
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._finder = RangeFinder(bus=bus, streams=streams, clock=clock)
        self._followed: set[str] = set()
        self._pushes = PushRecorder(bus=bus, prefix=streams.prefix, clock=clock)
        self._scan_seconds = scan_seconds
        self._registry_scan = Scanner(
            bus=bus, registry=registry, prefix=streams.prefix, clock=clock, every_seconds=scan_seconds
        )
        self._host_scan = HostScanner(
            bus=bus, engine=engine, prefix=streams.prefix, clock=clock, every_seconds=scan_seconds
        )
        self._transfers = TransferRecorder(bus=bus, streams=streams, pushes=self._pushes, clock=clock)

    def subscriptions(self) -> Sequence[Subscription]:
        return (
            Subscription(
                group=self.name,
                streams=self._listened,
                handlers=Handlers()
                .on(ImageBuilt, self._host_scan.appeared, key=None, give_up=None)
                .on(ImageImported, self._host_scan.appeared, key=None, give_up=None)
                .on(ImagePromoted, self._host_scan.appeared, key=None, give_up=None)
                .on(PushRequested, self._pushes.requested, key=None, give_up=None)
                .on(ImagePushed, self._pushed, key=_reference, give_up=None)
                .on(ImagePushFailed, self._pushes.ended, key=None, give_up=None)
                .on(PushSkipped, self._pushes.skipped, key=None, give_up=None)
                .on(ImageDeleted, self._deleted, key=_reference, give_up=None)
                .on(DeploymentSucceeded, self._ended, key=None, give_up=None)
                .on(DeploymentFailed, self._ended, key=None, give_up=None)
                .on(DeploymentCancelled, self._ended, key=None, give_up=None)
                .on(AgentStarted, self._listed, key=None, give_up=None)
                .on(ImagesChanged, self._listed, key=None, give_up=None),
                lease_seconds=self._lease_seconds,
                dead_stream=self._streams.dead,
            ),
        )

    def _listened(self) -> list[str]:
        outboxes = map(self._streams.outbox, self._finder.found)
        return [self._streams.images, self._streams.deployments, *outboxes]

    async def run(self) -> None:
        """Discover new ranges and copy their progress until cancelled."""
        first = True
        clock = asyncio.get_running_loop().time
        relay = ProgressRelay(bus=self._bus, streams=self._streams, clock=clock, limits=RangeLimits())
        async with TaskGroup() as tasks:
            tasks.create_task(self._transfers.run())
            if self._scan_seconds > 0:
                tasks.create_task(self._scan_often(self._registry_scan))
                tasks.create_task(self._scan_often(self._host_scan))
            while True:
                with suppress(BusError):  # Redis is unavailable: the next round
                    await self._finder.find()
                    new = set(map(self._streams.range_progress, self._finder.found)) - self._followed
                    if new:
                        self._followed |= new
                        tasks.create_task(relay.follow(sorted(new), "$" if first else "0"))
                    first = False
                await asyncio.sleep(FIND_SECONDS)

    async def _scan_often(self, scanner: Scanner | HostScanner) -> None:
        """Scan whenever it is time, which the scanner knows; a scan that fails is told in its report."""
        while True:
            with suppress(BusError, UnreadableRecord):
                await scanner.scan()
            await asyncio.sleep(min(self._scan_seconds, SCAN_LOOK_SECONDS))

    # ---- records ----

    async def _pushed(self, delivery: Delivery[ImagePushed]) -> Outcome:
        message, at = delivery.message, delivery.envelope.time
        name, changed = message.reference, self._clock().timestamp()
        push = await self._pushes.ended(delivery)
        return Outcome(
            records=(
                *push.records,
                self._keys.image(name).write(RegistryEntry.said(message, at), expected=ANY),
                self._keys.layers(name).write(ImageLayers.said(message), expected=ANY),
            ),
            index=(
                *push.index,
                IndexWrite(self._keys.images, name, at.timestamp()),
                IndexWrite(self._keys.image_changes, name, changed),
            ),
        )

    async def _deleted(self, delivery: Delivery[ImageDeleted]) -> Outcome:
        """What a collection freed later says nothing new: the tag may have been pushed again since."""
        message = delivery.message
        if message.collected:
            return NOTHING
        return deleted(self._keys, message.reference, self._clock())

    async def _ended(self, delivery: Delivery[DeploymentEnded]) -> Outcome:
        message = delivery.message
        ended_at = delivery.envelope.time
        held = await self._hold(message.range_id, lambda before: before.with_arrivals(message.images, ended_at))
        uses = [
            self._keys.use(one.reference).write(ImageUse(reference=one.reference, deployed_at=ended_at), expected=ANY)
            for one in message.images
            if one.how is not None
        ]
        return replace(held, records=(*held.records, *uses))

    async def _listed(self, delivery: Delivery[AgentStarted | ImagesChanged]) -> Outcome:
        """The inventory from a complete list; a list that is older than a later one changes nothing."""
        message, at = delivery.message, believed(delivery.envelope.time, self._clock())
        range_id = self._streams.range_of(delivery.stream)
        if range_id != message.range_id:
            raise BadInput(f"the outbox of range {range_id} tells of range {message.range_id}: refused")

        def change(before: RangeInventory) -> RangeInventory:
            if before.listed_at is not None and at < before.listed_at:
                return before
            return RangeInventory.announced(range_id, message.images, at)

        return await self._hold(range_id, change)

    async def _hold(self, range_id: str, change: Callable[[RangeInventory], RangeInventory]) -> Outcome:
        """Write the range's record and the index of holders together."""
        key, moment = self._keys.holdings(range_id), self._clock()
        now = moment.timestamp()
        stored = await key.load(self._bus)
        before = stored.value or RangeInventory(range_id=range_id)
        after = msgspec.structs.replace(change(before), heard_at=moment)
        gone = [
            IndexWrite(self._keys.holders(image_id), range_id, None)
            for image_id in sorted(before.image_ids - after.image_ids)
        ]
        come = [
            IndexWrite(self._keys.holders(image_id), range_id, now)
            for image_id in sorted(after.image_ids - before.image_ids)
        ]
        return Outcome(records=(key.write(after, expected=stored),), index=(*gone, *come))


def _reference(delivery: Delivery[ImagePushed | ImageDeleted]) -> str:
    """The single-flight key of what changes an image's record."""
    return delivery.message.reference
