"""Push recorder: a record for every push, from the events of the images stream."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from events.bus import NOTHING, BusClient, Delivery, Outcome, RecordConflict
from events.messages import ImagePushed, ImagePushFailed, PushRequested, PushSkipped
from services.core.images.pushes import PushKeys, PushRecord, ended, requested, skipped, written
from services.core.images.transfers import Transfer, push_of


class PushRecorder:
    """Handlers of one tracker."""

    def __init__(self, *, bus: BusClient, prefix: str, clock: Callable[[], datetime]) -> None:
        self._bus = bus
        self._keys = PushKeys(prefix)
        self._clock = clock

    async def requested(self, delivery: Delivery[PushRequested]) -> Outcome:
        """A request that is read after the push's end changes what was not known by then."""
        asked = requested(delivery.envelope, delivery.message)
        stored = await self._keys.record(asked.id).load(self._bus)
        before = stored.value
        if before is not None:
            asked = msgspec.structs.replace(
                before, why=asked.why, actor=asked.actor, source=asked.source, asked_at=asked.asked_at
            )
        return NOTHING if asked == before else written(self._keys, stored, asked, self._clock())

    async def ended(self, delivery: Delivery[ImagePushed] | Delivery[ImagePushFailed]) -> Outcome:
        """The end of a push: of the one that the event names as its cause."""
        envelope = delivery.envelope
        message: ImagePushed | ImagePushFailed = delivery.message
        stored = await self._keys.record(envelope.causation_id or envelope.id).load(self._bus)
        return written(self._keys, stored, ended(stored.value, envelope, message), self._clock())

    async def skipped(self, delivery: Delivery[PushSkipped]) -> Outcome:
        record = skipped(delivery.envelope, delivery.message)
        stored = await self._keys.record(record.id).load(self._bus)
        return NOTHING if stored.value is not None else written(self._keys, stored, record, self._clock())

    async def begun(self, transfer: Transfer) -> None:
        """Record that a push is under way; one that nobody asked for is an automatic one. Raises BusError."""
        push_id = push_of(transfer.transfer_id)
        if push_id is None:
            return
        stored = await self._keys.record(push_id).load(self._bus)
        before = stored.value or PushRecord(
            id=push_id,
            reference=transfer.reference,
            asked_at=transfer.started_at,
            changed_at=transfer.started_at,
            why="auto",
        )
        if before.state != "requested":
            return
        after = msgspec.structs.replace(before, state="pushing", changed_at=transfer.updated_at)
        try:
            await self._bus.commit(written(self._keys, stored, after, self._clock()))
        except RecordConflict:
            return  # its end came meanwhile, or the next progress tells it again
