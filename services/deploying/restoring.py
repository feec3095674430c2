"""Gives a range again what it should have and lacks: as a deployment of its own, of the content as it was deployed.

Compared when an agent comes up, and by the reconciler for as long as something is missing. What an open deployment of
the range is about is left to that one. While the range has one engine, only what it has under no name is missing: a
name that other content has by now was given by somebody. A restore that failed is made again after a pause that grows.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from events.bus import NOTHING, Outcome
from events.envelope import Envelope
from services.core.deployment import Deployment
from services.core.deployment_draft import Step
from services.core.deployment_steps import restored
from services.core.ranges import KnownRange, WantedImage
from services.deploying.outcomes import Desk, Stored, shared_id
from services.telemetry import get_logger

PAUSE = timedelta(seconds=60)
PAUSE_LIMIT = timedelta(days=1)


class Restorer:
    """Makes the deployments. Their ids follow from the agent's life, so that each is made once."""

    def __init__(self, desk: Desk) -> None:
        self._speaker = desk.speaker
        self._writer = desk.writer
        self._policy = desk.policy
        self._log = get_logger(role="deployer")

    async def restore(
        self, known: KnownRange, missing: tuple[WantedImage, ...], now: datetime, *, cause: Envelope | None = None
    ) -> Outcome:
        """Bring `missing` to the range, unless that is under way or was tried a moment ago."""
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
        told = Step(replace(step.deployment, reason="the range lacked what it should have"), step.effects)
        return self._writer.outcome(Stored(deployment=None, revision=0), told, now, cause=cause)

    async def _under_way(self, range_id: str) -> frozenset[str]:
        idents = await self._speaker.members(self._writer.keys.range(range_id))
        records = await self._speaker.load_many([self._writer.keys.record(ident) for ident in idents])
        found = [msgspec.json.decode(record.value, type=Deployment) for record in records if record is not None]
        return frozenset(image.reference for one in found if one.open for image in one.images)

    async def _next(self, known: KnownRange, now: datetime) -> str | None:
        """The id of the restore to make now; None while an earlier one of this life is open or not long over."""
        tried = 0
        while True:
            ident = f"restore-{shared_id(known.range_id, known.engine_id, known.started_at.isoformat(), tried)}"
            record = await self._speaker.load(self._writer.keys.record(ident))
            if record is None:
                return ident
            earlier = msgspec.json.decode(record.value, type=Deployment)
            pause = min(PAUSE * 2 ** min(tried, 20), PAUSE_LIMIT)
            if earlier.open or now < (earlier.ended_at or earlier.requested_at) + pause:
                return None
            tried += 1
