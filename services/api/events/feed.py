"""Feed: follows the streams and the read model, and broadcasts what happens.

event       an entry of the streams of images, deployments or dead letters; its id is where a client can go on
transfer    the progress of a transfer, at most four times a second each, and always its end
changed     rows of the read model that changed, came or went
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import msgspec

from events.bus import BusError, Tailed
from events.lease import Bus
from events.messages import DeploymentFailed, DeploymentPlanned, DeploymentRequested
from events.streams import Streams
from events.task_group import TaskGroup
from services.api.events.broadcast import Broadcast
from services.api.events.frames import BEGINNING, Positions, frame
from services.api.lists.read import Recent
from services.queries.events import entry_view
from services.queries.logged_events import LoggedEvent, logged
from services.queries.read_model.mirror import Change, Mirror
from services.queries.read_model.rows import TransferRow

#: So many events are kept for the event log, and those of so long before the start.
KEPT_EVENTS = 2000
HISTORY_SECONDS = 3600.0
#: Of one transfer, a message at most so often.
TRANSFER_SECONDS = 0.25
#: So many rows are told one by one.
ROWS_TOLD = 100
_PAUSE_SECONDS = 2.0


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that changed. An id without a row is gone. `all`: there are too many, ask for the list again."""

    kind: str
    ids: list[str] = []
    rows: list[Any] = []
    all: bool = False


class Feed(Recent):
    """The feed of one API. `clock` gives aware times, `monotonic` seconds."""

    def __init__(
        self,
        *,
        bus: Bus,
        streams: Streams,
        mirror: Mirror,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.broadcast = Broadcast()
        self.names = {"images": streams.images, "deployments": streams.deployments, "dead": streams.dead}
        self._short = {stream: name for name, stream in self.names.items()}
        self._bus, self._streams, self._mirror, self._clock = bus, streams, mirror, clock
        self._log: deque[LoggedEvent] = deque(maxlen=KEPT_EVENTS)
        self._waiting: dict[str, TransferRow] = {}
        self._told_at: dict[str, float] = {}
        began = int((clock().timestamp() - HISTORY_SECONDS) * 1000)
        self.positions = Positions(dict.fromkeys(self.names, f"{began}-0"))
        self.ready = asyncio.Event()
        """Set once the history was read: from then on `positions` are the latest."""
        mirror.listener = self.changed

    def entries(self) -> Sequence[LoggedEvent]:
        return tuple(reversed(self._log))

    async def run(self) -> None:
        """Follow until cancelled."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._follow_events())
            tasks.create_task(self._follow_progress())
            tasks.create_task(self._tell_transfers())

    # ---- events ----

    async def _follow_events(self) -> None:
        while True:
            try:
                if not self.ready.is_set():
                    await self._read_history()
                    self.ready.set()
                entries = self._bus.tail(list(self._short), after=self._places())
                async with aclosing(entries) as tail:
                    async for entry in tail:
                        self.heard(entry)
            except BusError:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _read_history(self) -> None:
        """Take over the events of the time before the start. A stream without any entry is told from its beginning."""
        for name, stream in self.names.items():
            if await first_entry(self._bus, stream) is None:
                self.positions = self.positions.moved(name, BEGINNING)
        async for entry in self._bus.tail(list(self._short), after=self._places(), follow=False):
            self._keep(entry)

    def _places(self) -> dict[str, str]:
        return {self.names[name]: entry for name, entry in self.positions.entries.items()}

    def _keep(self, entry: Tailed) -> LoggedEvent:
        """Take over an entry into the log."""
        self.positions = self.positions.moved(self._short[entry.stream], entry.entry_id)
        view = logged(entry_view(entry))
        self._log.append(view)
        self._take_over(entry)
        return view

    def heard(self, entry: Tailed) -> None:
        """Take over an entry of a stream, and tell it."""
        view = self._keep(entry)
        self.broadcast.publish(frame("event", view, ident=self.positions.encode()))
        self._mirror.wake()

    def _take_over(self, entry: Tailed) -> None:
        """Show what nobody has made a record of yet."""
        envelope = entry.envelope
        message = envelope.message if envelope else None
        deployments, plans = self._mirror.deployments, self._mirror.plans
        if envelope is not None and isinstance(message, DeploymentRequested):
            if deployments.asked_for(message, envelope):
                self.changed(Change(kind="deployments", ids=frozenset({message.deployment_id})))
        elif envelope is not None and isinstance(message, DeploymentPlanned):
            if plans.announced(message, envelope.time):
                self.changed(Change(kind="plans", ids=frozenset({message.plan_id})))
        elif isinstance(message, DeploymentFailed) and deployments.given_up(message):
            self.changed(Change(kind="deployments", ids=frozenset({message.deployment_id})))

    # ---- progress ----

    async def _follow_progress(self) -> None:
        stream = self._streams.progress
        place = "0"
        while True:
            try:
                async for entry in self._bus.tail((stream,), after=place):
                    place = entry.entry_id
                    row = self._mirror.transfers.told(entry, self._clock())
                    if row is not None:
                        self._transfer(row)
            except BusError:
                await asyncio.sleep(_PAUSE_SECONDS)

    def _transfer(self, row: TransferRow) -> None:
        """Tell the progress at once where nothing was told of it lately, otherwise with the next round."""
        ended = row.phase in ("done", "failed")
        now = monotonic()
        if ended or now - self._told_at.get(row.transfer_id, float("-inf")) >= TRANSFER_SECONDS:
            self._waiting.pop(row.transfer_id, None)
            self._told_at[row.transfer_id] = now
            if ended:
                self._told_at.pop(row.transfer_id)
            self.broadcast.publish(frame("transfer", row))
        else:
            self._waiting[row.transfer_id] = row

    async def _tell_transfers(self) -> None:
        while True:
            await asyncio.sleep(TRANSFER_SECONDS / 5)
            self.tell_waiting()

    def tell_waiting(self) -> None:
        """Tell the progress that was held back long enough, and which transfers are stalled from now on."""
        now = monotonic()
        for ident, row in list(self._waiting.items()):
            if now - self._told_at.get(ident, float("-inf")) >= TRANSFER_SECONDS:
                del self._waiting[ident]
                self._told_at[ident] = now
                self.broadcast.publish(frame("transfer", row))
        for row in self._mirror.transfers.expire(self._clock()):
            self.broadcast.publish(frame("transfer", row))
        if len(self._told_at) > 2 * len(self._mirror.transfers.table) + 100:
            self._told_at = {ident: at for ident, at in self._told_at.items() if now - at < TRANSFER_SECONDS}

    # ---- rows ----

    def changed(self, change: Change) -> None:
        """Tell which rows changed."""
        if len(change.ids) > ROWS_TOLD:
            self.broadcast.publish(frame("changed", Changed(kind=change.kind, all=True)))
            return
        ids = sorted(change.ids)
        rows = [row for ident in ids if (row := self._mirror.row(change.kind, ident)) is not None]
        self.broadcast.publish(frame("changed", Changed(kind=change.kind, ids=ids, rows=rows)))


async def first_entry(bus: Bus, stream: str) -> str | None:
    """The id of the first entry of a stream, None where it has none. Raises BusError."""
    async for entry in bus.tail((stream,), after=BEGINNING, follow=False):
        return entry.entry_id
    return None
