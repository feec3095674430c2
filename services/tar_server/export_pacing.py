"""Pacing of exports: a range that has the same image exported again and again waits for each one.

How often it may is `services.core.ranges.export_pace`; here is the waiting, for as long as a request is held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.core.deployments.offers import Offer
from services.core.ranges.export_pace import ExportPace
from services.errors import Unavailable


class Busy(Unavailable):
    """The export's turn has not come; its place in the queue is kept for a retry that comes soon."""

    code = "exports_busy"


class ExportPacing:
    """`patience_seconds`: how long a request is held before its reader is told to ask again."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience = patience_seconds
        self._pace = ExportPace()

    async def may_begin(self, offer: Offer, has_begun: Callable[[], bool]) -> None:
        """Return when the offer's range may have its image exported, or somebody else began that. Raises Busy."""
        if offer.range_id is None:
            return
        clock = asyncio.get_running_loop().time
        until = clock() + self._patience
        while wait := self._pace.begin(offer.range_id, offer.image_id, clock()):
            if clock() >= until:
                text = f"range {offer.range_id} had this image exported several times in a row"
                raise Busy(f"{text}: ask again with the same offer")
            await asyncio.sleep(min(wait, until - clock()))
            if has_begun():
                return

    def take_back(self, offer: Offer) -> None:
        """The export came to nothing before its first byte: it does not count."""
        if offer.range_id is not None:
            self._pace.take_back(offer.range_id, offer.image_id)
