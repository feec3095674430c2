"""`services.core.images.transfers`: the rate, the time left, and how many one range may have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from events.messages import TransferProgress
from services.core.images.transfers import PER_RANGE, Transfer, admits, advance, push_of, push_transfer_id

START = datetime(2026, 1, 31, tzinfo=UTC)
PROGRESS = TransferProgress(
    transfer_id="d.0.1", reference="web:1", kind="pull", phase="downloading", range_id="r", total_bytes=1000
)


def _after(*steps: tuple[float, int]) -> Transfer:
    transfer = None
    for seconds, done_bytes in steps:
        told = msgspec.structs.replace(PROGRESS, done_bytes=done_bytes)
        transfer = advance(transfer, told, START + timedelta(seconds=seconds))
    assert transfer is not None
    return transfer


def test_an_even_pace_is_the_rate() -> None:
    """And the time left follows from it."""
    transfer = _after((0, 0), (1, 100), (2, 200), (3, 300))
    assert transfer.bytes_per_second == 100
    assert transfer.seconds_left() == 7


def test_what_is_not_known_is_not_told() -> None:
    """Before a second message, after the end, and where a phase began anew."""
    assert _after((0, 100)).seconds_left() is None
    assert _after((0, 0), (1, 1000)).seconds_left() is None
    assert _after((0, 0), (1, 900), (2, 10)).bytes_per_second == 0
    ended = advance(_after((0, 0), (1, 10)), msgspec.structs.replace(PROGRESS, phase="done"), START)
    assert not ended.ended, "an older message changes nothing"


def test_a_transfer_that_says_nothing_is_stalled() -> None:
    """Bytes that do not grow are not the same: the engine may unpack."""
    transfer = _after((0, 100), (10, 100))
    assert transfer.advanced_at == START
    assert not transfer.is_stalled(START + timedelta(seconds=20))
    assert transfer.is_stalled(START + timedelta(seconds=30))


def test_a_range_cannot_invent_transfers_without_end() -> None:
    """Those that are known go on, and other ranges are not held up."""
    known = {f"d.0.{number}": advance(None, PROGRESS, START) for number in range(PER_RANGE)}
    assert admits(known, msgspec.structs.replace(PROGRESS, transfer_id="d.0.5"))
    assert not admits(known, msgspec.structs.replace(PROGRESS, transfer_id="new"))
    assert admits(known, msgspec.structs.replace(PROGRESS, transfer_id="new", range_id="other"))
    assert not admits({}, msgspec.structs.replace(PROGRESS, transfer_id="x" * 300))


def test_the_transfer_of_a_push_is_named_for_it() -> None:
    """One can be found by the other."""
    assert push_of(push_transfer_id("p1")) == "p1"
    assert push_of("d.0.1") is None
