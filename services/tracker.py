"""The tracker: who has what, for people and pages; and every range's progress, where all can read it.

consumes  image.pushed, image.deleted, deployment.succeeded, deployment.failed, deployment.cancelled, agent.started,
          agent.images_changed
emits     transfer.progress

It decides nothing: its records (`services.core.holdings`) are made from what was said and may be deleted at any time.

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

from events.bus import BusError, Delivery, IndexWrite, Outcome, Post, RecordWrite, Speaker, Subscription, Tailed
from events.messages import (
    AgentStarted,
    DeploymentCancelled,
    DeploymentEnded,
    DeploymentFailed,
    DeploymentSucceeded,
    ImageDeleted,
    ImagePushed,
    ImagesChanged,
    TransferProgress,
)
from events.streams import Streams
from events.task_group import TaskGroup
from services.core.deployment import parse_transfer_id
from services.core.holdings import HoldingKeys, Holdings, RegistryEntry
from services.core.ranges import believed
from services.errors import BadInput
from services.finding_ranges import FIND_SECONDS, RangeFinder

#: About how many entries the shared progress stream keeps.
_KEPT = 10_000


class Tracker:
    """One replica. Several do the records together; one of them is enough for progress."""

    name = "tracker"

    def __init__(
        self,
        *,
        speaker: Speaker,
        streams: Streams,
        lease_seconds: float = 30.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._speaker = speaker
        self._streams = streams
        self._keys = HoldingKeys(streams.prefix)
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._finder = RangeFinder(speaker=speaker, streams=streams, clock=clock)
        self._followed: set[str] = set()

    def subscriptions(self) -> Sequence[Subscription]:
        return (
            Subscription(
                group=self.name,
                streams=self._listened,
                handlers={
                    ImagePushed: self._pushed,
                    ImageDeleted: self._deleted,
                    DeploymentSucceeded: self._ended,
                    DeploymentFailed: self._ended,
                    DeploymentCancelled: self._ended,
                    AgentStarted: self._listed,
                    ImagesChanged: self._listed,
                },
                lease_seconds=self._lease_seconds,
                dead_stream=self._streams.dead,
            ),
        )

    def _listened(self) -> list[str]:
        outboxes = map(self._streams.outbox, self._finder.found)
        return [self._streams.images, self._streams.deployments, *outboxes]

    async def run(self) -> None:
        """Looks for new ranges and copies their progress, for ever."""
        first = True
        async with TaskGroup() as tasks:
            while True:
                with suppress(BusError):  # Redis is away: the next round
                    await self._finder.find()
                    new = set(map(self._streams.range_progress, self._finder.found)) - self._followed
                    if new:
                        self._followed |= new
                        tasks.create_task(self._relay(sorted(new), "$" if first else "0"))
                    first = False
                await asyncio.sleep(FIND_SECONDS)

    # ---- progress ----

    async def _relay(self, streams: list[str], after: str) -> None:
        """One task for all ranges that were found together."""
        places = dict.fromkeys(streams, after)
        while True:
            try:
                async for entry in self._speaker.tail(streams, after=places):
                    places[entry.stream] = entry.entry_id
                    await self._copy(entry)
            except BusError:
                await asyncio.sleep(FIND_SECONDS)

    async def _copy(self, entry: Tailed) -> None:
        range_id = self._streams.range_of(entry.stream)
        envelope = entry.envelope
        if envelope is None or range_id is None or not isinstance(envelope.message, TransferProgress):
            return
        progress = envelope.message
        if progress.kind not in ("pull", "load") or parse_transfer_id(progress.transfer_id) is None:
            return
        said = replace(
            envelope,
            message=msgspec.structs.replace(progress, range_id=range_id),
            source=f"agent@{range_id}",
            subject=range_id,
        )
        await self._speaker.commit(Outcome(posts=(Post(self._streams.progress, said, keep=_KEPT),)))

    # ---- records ----

    async def _pushed(self, delivery: Delivery) -> Outcome:
        message, now = delivery.message, delivery.envelope.time
        assert isinstance(message, ImagePushed)
        entry = msgspec.json.encode(RegistryEntry.said(message, now))
        return Outcome(
            records=(RecordWrite(self._keys.image(message.reference), entry),),
            index=(IndexWrite(self._keys.images, message.reference, now.timestamp()),),
        )

    async def _deleted(self, delivery: Delivery) -> Outcome:
        message = delivery.message
        assert isinstance(message, ImageDeleted)
        return Outcome(
            records=(RecordWrite(self._keys.image(message.reference), None),),
            index=(IndexWrite(self._keys.images, message.reference, None),),
        )

    async def _ended(self, delivery: Delivery) -> Outcome:
        message = delivery.message
        assert isinstance(message, DeploymentEnded)
        ended_at = delivery.envelope.time
        return await self._hold(message.range_id, lambda before: before.with_arrivals(message.images, ended_at))

    async def _listed(self, delivery: Delivery) -> Outcome:
        """All that a range has; a list that was overtaken by a later one says nothing any more."""
        message, at = delivery.message, believed(delivery.envelope.time, self._clock())
        assert isinstance(message, AgentStarted | ImagesChanged)
        range_id = self._streams.range_of(delivery.stream)
        if range_id != message.range_id:
            raise BadInput(f"the outbox of range {range_id} tells of range {message.range_id}: refused")

        def change(before: Holdings) -> Holdings:
            if before.listed_at is not None and at < before.listed_at:
                return before
            return Holdings.announced(range_id, message.images, at)

        return await self._hold(range_id, change)

    async def _hold(self, range_id: str, change: Callable[[Holdings], Holdings]) -> Outcome:
        """The range's record and the index of holders, moved together."""
        key, moment = self._keys.holdings(range_id), self._clock()
        now = moment.timestamp()
        record = await self._speaker.load(key)
        before = msgspec.json.decode(record.value, type=Holdings) if record else Holdings(range_id=range_id)
        after = msgspec.structs.replace(change(before), heard_at=moment)
        gone = [
            IndexWrite(self._keys.holders(image_id), range_id, None)
            for image_id in sorted(before.image_ids - after.image_ids)
        ]
        come = [
            IndexWrite(self._keys.holders(image_id), range_id, now)
            for image_id in sorted(after.image_ids - before.image_ids)
        ]
        write = RecordWrite(key, msgspec.json.encode(after), expected=record.revision if record else 0)
        return Outcome(records=(write,), index=(*gone, *come))
