"""Pushes and prompts in memory: a row for every push, with its progress, and one for every open question."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

import msgspec

from events.lease import Bus
from services.core.images.prompts import prompt_id, prompt_index, prompt_key
from services.core.images.push_batches import PushBatch
from services.core.images.pushes import PushKeys, PushRecord, PushResult
from services.core.images.transfers import push_transfer_id
from services.queries.read_model.listing import Listing
from services.queries.read_model.record_follower import RecordFollower
from services.queries.read_model.rows import PromptRow, PushRow, TransferRow, cut, cut_failure
from services.queries.read_model.table import Table
from services.queries.read_model.transfers import Transfers

#: Changes of this time before the last look are looked at again: they carry the time of the replica that wrote them.
OVERLAP_SECONDS = 60.0
#: So many of the latest pushes are looked through for one that no index leads to.
_LOOKED_THROUGH = 5000


class PushDetails(PushRow, frozen=True, kw_only=True):
    """A push with its transfer while it is under way, and its result."""

    transfer: TransferRow | None = None
    result: PushResult | None = None


class Pushes:
    """The table of pushes."""

    def __init__(self, bus: Bus, prefix: str, transfers: Transfers) -> None:
        self._bus = bus
        self._keys = PushKeys(prefix)
        self._transfers = transfers
        self._follower = RecordFollower(bus, self._keys.record)
        self._results: dict[str, PushResult | None] = {}
        self.table = Table[PushRow](
            {
                "asked": lambda row: row.asked_at.timestamp(),
                "name": lambda row: row.reference,
                "state": lambda row: row.state,
            }
        )
        self.listing = Listing(
            table=self.table,
            text=lambda row: f"{row.reference} {row.id} {row.actor}",
            sorts={"asked": "desc", "name": "asc", "state": "asc"},
            state=lambda row: row.state,
        )

    async def sync(self, now: datetime, *, full: bool) -> set[str]:
        """Take over what changed. Returns the ids of rows that did. Raises BusError."""
        low = float("-inf") if full else now.timestamp() - OVERLAP_SECONDS
        ids = set(await self._bus.members(self._keys.changes, low=low))
        if full:
            ids |= set(self._follower.known())
        return {ident for ident, push in (await self._follower.changes(ids)).items() if self._put(ident, push)}

    async def look_for(self, push_id: str) -> None:
        """Take over one record that may be new. Raises BusError."""
        for ident, push in (await self._follower.changes([push_id])).items():
            self._put(ident, push)

    def _put(self, ident: str, push: PushRecord | None) -> bool:
        if push is None:
            self._results.pop(ident, None)
            return self.table.remove(ident)
        self._results[ident] = push.result
        return self.table.put(ident, push_row(push))

    def with_progress(self, row: PushRow) -> PushRow:
        """The row with the bytes of its transfer, which is no change of the table."""
        transfer = self._transfers.of(push_transfer_id(row.id))
        if transfer is None or row.ended_at is not None:
            return row
        return msgspec.structs.replace(
            row, state="pushing", done_bytes=transfer.done_bytes, total_bytes=transfer.total_bytes
        )

    def details(self, push_id: str) -> PushDetails | None:
        """One push; None if there is none."""
        row = self.table.rows.get(push_id)
        if row is None:
            return None
        return PushDetails(
            **msgspec.structs.asdict(self.with_progress(row)),
            transfer=self._transfers.of(push_transfer_id(push_id)),
            result=self._results.get(push_id),
        )

    def rows_of(self, batch: PushBatch) -> tuple[PushRow, ...]:
        """The pushes of a batch as they are now; what no record is known of yet was requested."""
        rows = []
        for push in batch.pushes:
            row = self.table.rows.get(push.id) or PushRow(
                id=push.id,
                reference=push.reference,
                state="requested",
                why="manual",
                asked_at=batch.asked_at,
                actor=cut(batch.actor),
            )
            rows.append(self.with_progress(row))
        return tuple(rows)

    def latest_of_prompt(self, prompt: str) -> PushRow | None:
        """The latest push of the image that a prompt was about, of those that are not too long ago."""
        latest = islice(self.table.walk("asked", descending=True), _LOOKED_THROUGH)
        return next((row for _, row in latest if prompt_id(row.reference) == prompt), None)

    def open(self) -> list[PushRow]:
        """Pushes that have not ended, the latest first."""
        rows = (row for _, row in self.table.walk("asked", descending=True))
        return [self.with_progress(row) for row in rows if row.ended_at is None]


def push_row(push: PushRecord) -> PushRow:
    """The row of a push."""
    return PushRow(
        id=push.id,
        reference=push.reference,
        state=push.state,
        why=push.why,
        asked_at=push.asked_at,
        ended_at=push.ended_at,
        image_id=push.image_id,
        actor=cut(push.actor),
        source=cut(push.source),
        done_bytes=push.result.sent_bytes + push.result.reused_bytes if push.result else 0,
        total_bytes=push.result.sent_bytes + push.result.reused_bytes if push.result else 0,
        error=cut_failure(push.error),
    )


class Prompts:
    """The table of open prompts."""

    def __init__(self, bus: Bus, prefix: str) -> None:
        self._bus = bus
        self._prefix = prefix
        self._follower = RecordFollower(bus, lambda ident: prompt_key(prefix, ident))
        self.table = Table[PromptRow](
            {"asked": lambda row: row.asked_at.timestamp(), "name": lambda row: row.reference}
        )
        self.listing = Listing(
            table=self.table,
            text=lambda row: f"{row.reference} {row.origin}",
            sorts={"asked": "asc", "name": "asc"},
        )

    async def sync(self) -> set[str]:
        """Take over what changed. Returns the ids of rows that did. Raises BusError."""
        open_ids = set(await self._bus.members(prompt_index(self._prefix)))
        changed = {ident for ident in set(self.table.rows) - open_ids if self.table.remove(ident)}
        self._follower.forget_all()  # one that was answered and asked again has the same revision
        for ident, prompt in (await self._follower.changes(open_ids)).items():
            if prompt is None:
                continue
            row = PromptRow(
                id=prompt.id,
                reference=prompt.reference,
                image_id=prompt.image_id,
                asked_at=prompt.asked_at,
                size_bytes=prompt.size_bytes,
                origin=cut(prompt.origin),
            )
            if self.table.put(ident, row):
                changed.add(ident)
        return changed
