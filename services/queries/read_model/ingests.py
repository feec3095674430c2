"""Builds, imports and promotes in memory: a row for each record, the latest first."""

from __future__ import annotations

from datetime import datetime

from events.lease import Bus
from events.messages import Failure
from services.core.images.ingests import IngestKeys, IngestRecord, lost
from services.queries.read_model.listing import Listing
from services.queries.read_model.pushes import OVERLAP_SECONDS
from services.queries.read_model.record_follower import RecordFollower
from services.queries.read_model.rows import Row, cut, cut_failure
from services.queries.read_model.table import Table


class IngestRow(Row, frozen=True, kw_only=True):
    """A build, import or promote: receiving, working, done or failed. `images` counts those that are there."""

    id: str
    kind: str
    state: str
    reference: str
    origin: str
    push: str
    actor: str
    started_at: datetime
    ended_at: datetime | None
    received_bytes: int
    total_bytes: int
    images: int
    note: str
    error: Failure | None


class Ingests:
    """The table of builds, imports and promotes."""

    def __init__(self, bus: Bus, prefix: str) -> None:
        self._bus = bus
        self._keys = IngestKeys(prefix)
        self._follower = RecordFollower(bus, self._keys.record)
        self.records: dict[str, IngestRecord] = {}
        self.table = Table[IngestRow](
            {"started": lambda row: row.started_at.timestamp(), "name": lambda row: row.reference}
        )
        self.listing = Listing(
            table=self.table,
            text=lambda row: f"{row.reference} {row.origin} {row.id} {row.actor}",
            sorts={"started": "desc", "name": "asc"},
            state=lambda row: row.state,
        )

    async def sync(self, now: datetime, *, full: bool) -> set[str]:
        """Take over what changed. Returns the ids of rows that did. Raises BusError."""
        low = float("-inf") if full else now.timestamp() - OVERLAP_SECONDS
        ids = set(await self._bus.members(self._keys.changes, low=low))
        if full:
            ids |= set(self._follower.known())
        changes = await self._follower.changes(ids)
        gone = {ident: lost(one) for ident, one in self.records.items() if one.is_lost(now)}
        return {ident for ident, record in {**gone, **changes}.items() if self._put(ident, record)}

    async def look_for(self, ingest_id: str) -> None:
        """Take over one record that may be new. Raises BusError."""
        for ident, record in (await self._follower.changes([ingest_id])).items():
            self._put(ident, record)

    def _put(self, ident: str, record: IngestRecord | None) -> bool:
        if record is None:
            self.records.pop(ident, None)
            return self.table.remove(ident)
        self.records[ident] = record
        return self.table.put(ident, ingest_row(record))


def ingest_row(record: IngestRecord) -> IngestRow:
    """The row of a record."""
    return IngestRow(
        id=record.id,
        kind=record.kind,
        state=record.state,
        reference=record.reference,
        origin=cut(record.origin),
        push=record.push,
        actor=cut(record.actor),
        started_at=record.started_at,
        ended_at=record.ended_at,
        received_bytes=record.received_bytes,
        total_bytes=record.total_bytes,
        images=len(record.images),
        note=cut(record.note),
        error=cut_failure(record.error),
    )
