"""Restorer: deploys again what a range should have and lost, with the content as it was deployed.

Runs when an agent comes up, and in the reconciler for as long as something is missing. What an open deployment of
the range is about is left to that one. While the range has one engine, only what it has under no name is missing: a
name that other content has by now was given by somebody. A restore that failed is made again after a pause that grows.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from events.bus import NOTHING, Outcome
from events.envelope import Envelope
from events.records import load_values
from services.core.deployments.transitions import restored
from services.core.ranges.ranges import DesiredImage, KnownRange
from services.deployer.context import DeployerContext
from services.deployer.outcomes import NEW, shared_id
from services.runtime.telemetry import get_logger

PAUSE = timedelta(seconds=60)
PAUSE_LIMIT = timedelta(days=1)


class Restorer:
    """Makes the deployments. Their ids follow from the agent's start, so that each is made once."""

    def __init__(self, context: DeployerContext) -> None:
        self._bus = context.bus
        self._writer = context.writer
        self._policy = context.policy
        self._log = get_logger(role="deployer")

    async def restore(
        self, known: KnownRange, missing: tuple[DesiredImage, ...], now: datetime, *, cause: Envelope | None = None
    ) -> Outcome:
        """Deploy `missing` to the range, unless that is under way or was tried a moment ago."""
        under_way = await self._under_way(known.range_id) if missing else frozenset[str]()
        lacking = tuple(image for image in missing if image.reference not in under_way)
        deployment_id = await self._next(known, now) if lacking else None
        if deployment_id is None:
            return NOTHING
        self._log.warning(
            "a range lacks what it should have", range=known.range_id, engine=known.engine_id, missing=len(lacking)
        )
        correlation_id = cause.correlation_id if cause else ""
        step = restored(
            deployment_id, known.range_id, lacking, correlation_id=correlation_id, now=now, policy=self._policy
        )
        return self._writer.outcome(NEW, step, now, cause=cause)

    async def _under_way(self, range_id: str) -> frozenset[str]:
        idents = await self._bus.members(self._writer.keys.range(range_id))
        found = await load_values(self._bus, [self._writer.keys.record(ident) for ident in idents])
        return frozenset(image.reference for one in found if one.open for image in one.images)

    async def _next(self, known: KnownRange, now: datetime) -> str | None:
        """The id of the restore to make now; None while an earlier one of this life is open or not long over."""
        tried = 0
        while True:
            ident = f"restore-{shared_id(known.range_id, known.engine_id, known.started_at.isoformat(), tried)}"
            earlier = (await self._writer.keys.record(ident).load(self._bus)).value
            if earlier is None:
                return ident
            pause = min(PAUSE * 2 ** min(tried, 20), PAUSE_LIMIT)
            if earlier.open or now < (earlier.ended_at or earlier.requested_at) + pause:
                return None
            tried += 1
