"""Transfers in memory: the progress that every transfer under way was last told to have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from events.bus import Tailed
from events.lease import Bus
from events.messages import TransferProgress
from events.records import load_values
from services.core.images.transfers import Transfer, TransferKeys, admits, advance
from services.queries.read_model.listing import Listing
from services.queries.read_model.rows import TransferRow, cut
from services.queries.read_model.table import Table

#: A transfer that told nothing for so long is not under way any more, whatever became of it.
FORGOTTEN = timedelta(hours=1)
_TOLD_ENDED = timedelta(seconds=30)


class Transfers:
    """The table of transfers. Those that ended stay a little, so that whoever looks sees the end."""

    def __init__(self, bus: Bus, prefix: str) -> None:
        self._bus = bus
        self._keys = TransferKeys(prefix)
        self._known: dict[str, Transfer] = {}
        self.table = Table[TransferRow](
            {"name": lambda row: row.reference, "started": lambda row: row.started_at.timestamp()}
        )
        self.listing = Listing(
            table=self.table,
            text=lambda row: f"{row.reference} {row.range_id or ''} {row.transfer_id}",
            sorts={"started": "desc", "name": "asc"},
            state=lambda row: row.phase,
        )

    async def load(self, now: datetime) -> None:
        """Take over what the tracker recorded. Raises BusError."""
        for transfer in await load_values(
            self._bus, [self._keys.record(ident) for ident in await self._bus.members(self._keys.open)]
        ):
            known = self._known.get(transfer.transfer_id)
            if known is None or known.updated_at < transfer.updated_at:
                self._keep(transfer, now)

    def told(self, entry: Tailed, now: datetime) -> TransferRow | None:
        """Take over an entry of the progress stream. None where it is no progress."""
        message = entry.envelope.message if entry.envelope else None
        if not isinstance(message, TransferProgress) or not admits(self._known, message):
            return None
        at = datetime.fromtimestamp(int(entry.entry_id.partition("-")[0]) / 1000, UTC)
        return self._keep(advance(self._known.get(message.transfer_id), message, at), now)

    def _keep(self, transfer: Transfer, now: datetime) -> TransferRow:
        self._known[transfer.transfer_id] = transfer
        row = transfer_row(transfer, now)
        self.table.put(transfer.transfer_id, row)
        return row

    def expire(self, now: datetime) -> list[TransferRow]:
        """Drop what is over; returns the rows that are stalled from now on."""
        stalled = []
        for ident, transfer in list(self._known.items()):
            if now - transfer.updated_at > (_TOLD_ENDED if transfer.ended else FORGOTTEN):
                del self._known[ident]
                self.table.remove(ident)
            elif transfer.is_stalled(now) and not self.table.rows[ident].stalled:
                stalled.append(self._keep(transfer, now))
        return stalled

    def of(self, transfer_id: str) -> TransferRow | None:
        """One transfer, if it is under way or ended a moment ago."""
        return self.table.rows.get(transfer_id)

    def under_way(self) -> list[TransferRow]:
        """All that have not ended, the latest first."""
        return [row for _, row in self.table.walk("started", descending=True) if row.phase not in ("done", "failed")]


def transfer_row(transfer: Transfer, now: datetime) -> TransferRow:
    """The row of a transfer."""
    return TransferRow(
        transfer_id=transfer.transfer_id,
        reference=transfer.reference,
        kind=transfer.kind,
        phase=transfer.phase,
        range_id=transfer.range_id,
        done_bytes=transfer.done_bytes,
        total_bytes=transfer.total_bytes,
        layers_done=transfer.layers_done,
        layers_total=transfer.layers_total,
        bytes_per_second=round(transfer.bytes_per_second, 1),
        seconds_left=transfer.seconds_left(),
        started_at=transfer.started_at,
        updated_at=transfer.updated_at,
        stalled=transfer.is_stalled(now),
        note=cut(transfer.note),
        layers=transfer.layers,
    )
