"""A range that has the same image exported again and again, while time is faked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from services.core.deployments.offers import Offer
from services.core.ranges.export_pace import BURST, SECONDS
from services.tar_server.export_pacing import Busy, ExportPacing

pytestmark = pytest.mark.faked_time
PATIENCE = 20.0


def offer(range_id: str | None = "r") -> Offer:
    """Of one image, to that range."""
    return Offer.make(
        token="t",
        transfer_id="t",
        reference="web:1",
        image_id="sha256:a",
        diff_ids=("sha256:b",),
        held=("sha256:b",),
        layout="docker",
        now=datetime(2026, 1, 1, tzinfo=UTC),
        lifetime_seconds=60,
        range_id=range_id,
    )


async def test_the_first_begin_at_once_and_later_ones_in_their_time() -> None:
    """A reader is held for its patience, told that it is not its turn, and comes again."""
    loop, pacing = asyncio.get_running_loop(), ExportPacing(PATIENCE)
    began = loop.time()
    for _ in range(BURST):
        await pacing.may_begin(offer(), lambda: False)
    assert loop.time() == began
    refused = 0
    while True:
        try:
            await pacing.may_begin(offer(), lambda: False)
            break
        except Busy:
            refused += 1
    assert SECONDS <= loop.time() - began < SECONDS + 1
    assert 0 < refused <= SECONDS / PATIENCE


async def test_an_export_that_somebody_else_began_is_joined() -> None:
    """It costs nothing more."""
    pacing = ExportPacing(PATIENCE)
    for _ in range(BURST):
        await pacing.may_begin(offer(), lambda: False)
    await pacing.may_begin(offer(), lambda: True)


async def test_an_export_that_failed_does_not_count() -> None:
    """And an offer that is no range's is nobody's account."""
    loop, pacing = asyncio.get_running_loop(), ExportPacing(PATIENCE)
    began = loop.time()
    for one in [offer(), offer(None)] * 10:
        await pacing.may_begin(one, lambda: False)
        pacing.take_back(one)
    assert loop.time() == began
