"""Transfers under way: the last progress of each push, pull, load and export, with its rate and the time left.

    {prefix}:transfer:<transfer_id>     Transfer, written by the tracker every few seconds, kept for a day
    {prefix}:index:transfers            transfer ids by the time of their last progress; those that ended are taken out

Progress is lossy, so each message stands for itself; the rate is averaged over some seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from events.messages import LayerProgress, TransferProgress
from events.records import Key

#: The average forgets what is older than about this.
RATE_SECONDS = 8.0
#: A transfer that told nothing for so long counts as stalled.
STALLED_SECONDS = 15.0
#: So many transfers of one range are known at a time: more than its agent works at.
PER_RANGE = 64
_ID_CHARACTERS = 256
ENDED = ("done", "failed")
_PUSH = "push-"


@dataclass(frozen=True, slots=True)
class TransferKeys:
    """Names under a key prefix."""

    prefix: str

    def record(self, transfer_id: str) -> Key[Transfer]:
        return Key(f"{self.prefix}:transfer:{transfer_id}", Transfer)

    @property
    def open(self) -> str:
        return f"{self.prefix}:index:transfers"


class Transfer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A transfer as it was last told. `advanced_at`: when bytes or layers last grew."""

    transfer_id: str
    reference: str
    kind: str
    phase: str
    started_at: datetime
    updated_at: datetime
    advanced_at: datetime
    range_id: str | None = None
    done_bytes: int = 0
    total_bytes: int = 0
    layers_done: int = 0
    layers_total: int = 0
    bytes_per_second: float = 0.0
    note: str = ""
    layers: tuple[LayerProgress, ...] = ()

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    def seconds_left(self) -> float | None:
        """How long it takes at this rate; None where that is not known."""
        if self.bytes_per_second <= 0 or self.total_bytes <= self.done_bytes or self.ended:
            return None
        return (self.total_bytes - self.done_bytes) / self.bytes_per_second

    def is_stalled(self, now: datetime) -> bool:
        return not self.ended and (now - self.updated_at).total_seconds() > STALLED_SECONDS


def push_transfer_id(push_id: str) -> str:
    """The id of the transfer of a push."""
    return f"{_PUSH}{push_id}"


def push_of(transfer_id: str) -> str | None:
    """The id of the push whose transfer that is; None for a transfer to a range."""
    return transfer_id.removeprefix(_PUSH) if transfer_id.startswith(_PUSH) else None


def admits(known: Mapping[str, Transfer], progress: TransferProgress) -> bool:
    """Whether progress is taken over: a range tells of its transfers itself, and may invent any number of them."""
    if progress.transfer_id in known:
        return True
    if len(progress.transfer_id) > _ID_CHARACTERS:
        return False
    of_range = sum(one.range_id == progress.range_id for one in known.values()) if progress.range_id else 0
    return of_range < PER_RANGE


def advance(before: Transfer | None, progress: TransferProgress, at: datetime) -> Transfer:
    """The transfer after `progress`, which was told `at`. One that is older than what is known changes nothing."""
    if before is not None and at < before.updated_at:
        return before
    grew = before is None or (progress.done_bytes, progress.layers_done) != (before.done_bytes, before.layers_done)
    return Transfer(
        transfer_id=progress.transfer_id,
        reference=progress.reference,
        kind=progress.kind,
        phase=progress.phase,
        started_at=at if before is None else before.started_at,
        updated_at=at,
        advanced_at=at if before is None or grew else before.advanced_at,
        range_id=progress.range_id,
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes,
        layers_done=progress.layers_done,
        layers_total=progress.layers_total,
        bytes_per_second=0.0 if before is None else _rate(before, progress, at),
        note=progress.note,
        layers=progress.layers,
    )


def _rate(before: Transfer, progress: TransferProgress, at: datetime) -> float:
    """The averaged rate. A phase counts from its own beginning, so a fall of the bytes is no rate."""
    seconds = (at - before.updated_at).total_seconds()
    step = progress.done_bytes - before.done_bytes
    if seconds <= 0:
        return before.bytes_per_second
    if step < 0:
        return 0.0
    weight = min(seconds / RATE_SECONDS, 1.0) if before.bytes_per_second else 1.0
    return before.bytes_per_second + weight * (step / seconds - before.bytes_per_second)
