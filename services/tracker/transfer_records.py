"""Transfer recorder: keeps the latest progress of every transfer as a record, so that a restart of a reader loses none.

Progress comes several times a second for each transfer; its record is written every two seconds at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from events.bus import BusClient, BusError, IndexWrite, Outcome, RecordWrite
from events.messages import TransferProgress
from events.records import ANY, load_values
from events.streams import Streams
from events.task_group import TaskGroup
from services.core.images.transfers import Transfer, TransferKeys, admits, advance
from services.tracker.push_records import PushRecorder

WRITE_SECONDS = 2.0
_PAUSE_SECONDS = 2.0
_KEPT_SECONDS = 86400.0
_ENDED_SECONDS = 60.0
#: A transfer that told nothing for so long is not under way any more.
_FORGOTTEN = timedelta(hours=1)


class TransferRecorder:
    """Records what the shared progress stream tells. Several trackers write the same."""

    def __init__(
        self, *, bus: BusClient, streams: Streams, pushes: PushRecorder, clock: Callable[[], datetime]
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._keys = TransferKeys(streams.prefix)
        self._pushes = pushes
        self._clock = clock
        self._known: dict[str, Transfer] = {}
        self._changed: set[str] = set()
        self._begun: set[str] = set()

    async def run(self) -> None:
        """Record until cancelled."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._write_often())

    async def _listen(self) -> None:
        place = f"{int((self._clock().timestamp() - _ENDED_SECONDS) * 1000)}-0"
        while True:
            try:
                if not self._known:
                    await self._load()
                async for entry in self._bus.tail((self._streams.progress,), after=place):
                    place = entry.entry_id
                    message = entry.envelope.message if entry.envelope else None
                    if isinstance(message, TransferProgress):
                        at = datetime.fromtimestamp(int(place.partition("-")[0]) / 1000, UTC)
                        self._take(message, at)
            except BusError:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _load(self) -> None:
        idents = await self._bus.members(self._keys.open)
        for transfer in await load_values(self._bus, [self._keys.record(ident) for ident in idents]):
            self._known[transfer.transfer_id] = transfer

    def _take(self, message: TransferProgress, at: datetime) -> None:
        if not admits(self._known, message):
            return
        self._known[message.transfer_id] = advance(self._known.get(message.transfer_id), message, at)
        self._changed.add(message.transfer_id)

    async def _write_often(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            try:
                await self.write()
            except BusError:
                continue  # what changed is still to be written

    async def write(self) -> None:
        """Write what changed. Raises BusError."""
        now = self._clock()
        forgotten = [ident for ident, one in self._known.items() if now - one.updated_at > _FORGOTTEN]
        changed = [self._known[ident] for ident in self._changed]
        records = [self._write_of(transfer) for transfer in changed]
        index = [
            IndexWrite(self._keys.open, one.transfer_id, None if one.ended else one.updated_at.timestamp())
            for one in changed
        ]
        index += [IndexWrite(self._keys.open, ident, None) for ident in forgotten]
        if records or index:
            await self._bus.commit(Outcome(records=tuple(records), index=tuple(index)))
        self._changed -= {one.transfer_id for one in changed}
        for transfer in changed:
            if transfer.transfer_id not in self._begun and not transfer.ended:
                await self._pushes.begun(transfer)
                self._begun.add(transfer.transfer_id)
        for ident in (*forgotten, *(one.transfer_id for one in changed if one.ended)):
            self._known.pop(ident, None)
            self._begun.discard(ident)

    def _write_of(self, transfer: Transfer) -> RecordWrite:
        expires = _ENDED_SECONDS if transfer.ended else _KEPT_SECONDS
        return self._keys.record(transfer.transfer_id).write(transfer, expected=ANY, expires_seconds=expires)
