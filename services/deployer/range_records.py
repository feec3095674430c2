"""Records of ranges: what each agent reported, the desired images of each, and what it lacks."""

from __future__ import annotations

from datetime import datetime

import msgspec

from events.bus import NOTHING, Delivery, IndexWrite, Outcome, RecordWrite
from events.envelope import Envelope
from events.messages import AgentStarted, DeploymentAdvance, ImagesChanged
from events.records import ABSENT, load_both
from services.core.deployments.deployment import Deployment
from services.core.ranges.heartbeat import engine_of
from services.core.ranges.range_claims import RangeClaim, claim_key
from services.core.ranges.ranges import DesiredImage, DesiredImages, KnownRange, RangeKeys, believed
from services.deployer.contest_watch import is_contested
from services.deployer.context import DeployerContext
from services.deployer.outcomes import merged
from services.deployer.plans import Plans
from services.deployer.restorer import Restorer
from services.errors import BadInput
from services.runtime.telemetry import get_logger


class RangeRecords:
    """Handles `agent.started` and `agent.images_changed`, and keeps the records of `services.core.ranges.ranges`."""

    def __init__(self, context: DeployerContext, plans: Plans) -> None:
        self._plans = plans
        self._bus = context.bus
        self._streams = context.streams
        self._writer = context.writer
        self._restorer = Restorer(context)
        self._clock = context.clock
        self._keys = RangeKeys(context.streams.prefix)
        self._log = get_logger(role="deployer")

    async def agent_started(self, delivery: Delivery[AgentStarted]) -> Outcome:
        """Store the range's record, wake deployments that wait for it, restore its desired images, and carry out plans
        that name it.
        """
        message, now = delivery.message, self._clock()
        said_at = believed(delivery.envelope.time, now)
        range_id = self._checked(delivery)
        key = self._keys.known(range_id)
        stored = await key.load(self._bus)
        known = stored.value
        if known is not None and said_at < known.started_at:
            return NOTHING  # word of an earlier life, overtaken by that of a later one
        claim_record = claim_key(self._streams.prefix, range_id)
        claimed = await claim_record.load(self._bus)
        said = msgspec.structs.replace(KnownRange.said(message, said_at), host=_host(message, claimed.value))
        claims: tuple[RecordWrite, ...] = ()
        if claimed.value is None and said.host:
            claims = (claim_record.write(RangeClaim(range_id=range_id, host=said.host, since=now), expected=ABSENT),)
        outcomes = [
            Outcome(
                records=(key.write(said, expected=stored), *claims),
                index=(IndexWrite(self._keys.known_index, range_id, now.timestamp()),),
            )
        ]
        for deployment_id in await self._bus.members(self._writer.keys.range(range_id)):
            nudge = DeploymentAdvance(deployment_id=deployment_id, why="agent_started")
            correlation_id = delivery.envelope.correlation_id
            outcomes.append(Outcome(posts=(self._writer.advance(nudge, now, correlation_id=correlation_id),)))
        recreated = known is not None and known.engine_id != message.engine_id
        outcomes.append(await self._restore(said, now, delivery.envelope, recreated=recreated))
        outcomes.append(await self._plans.reached(range_id, now, delivery.envelope))
        return merged(*outcomes)

    async def images_changed(self, delivery: Delivery[ImagesChanged]) -> Outcome:
        """Store the images that the range has now. The reconciler restores what it lost."""
        message, said_at = delivery.message, believed(delivery.envelope.time, self._clock())
        key = self._keys.known(self._checked(delivery))
        stored = await key.load(self._bus)
        known = stored.value
        if known is None or said_at < (known.listed_at or known.started_at):
            return NOTHING  # of a range that has not announced itself, or overtaken by a later word
        listed = msgspec.structs.replace(
            known, images=message.images, listed_at=said_at, unreadable_layers=message.unreadable_layers
        )
        return Outcome(records=(key.write(listed, expected=stored),))

    def _checked(self, delivery: Delivery[AgentStarted | ImagesChanged]) -> str:
        message = delivery.message
        range_id = self._streams.range_of(delivery.stream)
        if range_id != message.range_id:
            raise BadInput(f"the outbox of range {range_id} tells of range {message.range_id}: refused")
        return range_id

    async def _restore(self, known: KnownRange, now: datetime, cause: Envelope, *, recreated: bool) -> Outcome:
        if await is_contested(self._bus, self._streams.prefix, known.range_id):
            return NOTHING
        wanted = (await self._keys.wanted(known.range_id).load(self._bus)).value or DesiredImages(range_id="")
        missing = wanted.missing(known.images) if recreated else wanted.absent(known.images)
        names = {name for image in known.images for name in image.references}
        self._log.info(
            "range was recreated" if recreated else "agent came up",
            range=known.range_id,
            engine=known.engine_id,
            missing=len(missing),
            unwanted=len(names - wanted.images.keys()),
        )
        return await self._restorer.restore(known, missing, now, cause=cause)

    async def remembered(self, deployment: Deployment, at: datetime) -> tuple[str | None, Outcome | None]:
        """A deployment is about to succeed: its content is what the range should have, but for what came later.

        Deployments of a range end in another order than their images arrive, and under one name the last one to arrive
        is what is there. `at` is now by the range's clock.

        None instead if the range has another engine by now; that engine's id comes first. So it is while two agents
        speak for the range, and nobody knows on which engine the content is. The range's own record is
        rewritten as it is, under its revision: either this is committed before the new engine is known, and then is
        restored to it, or it conflicts and is looked at again.
        """
        if await is_contested(self._bus, self._streams.prefix, deployment.range_id):
            return deployment.engine_id, None
        known_key, wanted_key = self._keys.known(deployment.range_id), self._keys.wanted(deployment.range_id)
        known, wanted = await load_both(self._bus, known_key, wanted_key)
        writes = []
        if known.value is not None:
            (beat,) = await self._bus.beats([self._streams.alive(deployment.range_id)])
            engine_id = engine_of(beat) or known.value.engine_id
            if deployment.engine_id is not None and engine_id != deployment.engine_id:
                return engine_id, None
            writes.append(known_key.write(known.value, expected=known))
        images = dict(wanted.value.images) if wanted.value else {}
        for image in deployment.images:
            since, before = image.arrived_at or at, images.get(image.reference)
            later = before is not None and before.since is not None and before.since > since
            if image.image_id is not None and not later:
                images[image.reference] = DesiredImage(
                    reference=image.reference,
                    image_id=image.image_id,
                    diff_ids=image.diff_ids,
                    deployment_id=deployment.deployment_id,
                    since=since,
                    source=image.source,
                )
        writes.append(wanted_key.write(DesiredImages(range_id=deployment.range_id, images=images), expected=wanted))
        return None, Outcome(records=tuple(writes))


def _host(message: AgentStarted, claim: RangeClaim | None) -> str:
    """Where the range is. Raises BadInput where it says to be elsewhere than the host that claimed its id."""
    if claim is None or message.host is None:
        return claim.host if claim is not None else message.host or ""
    refusal = claim.refusal(message.host)
    if refusal is not None:
        raise BadInput(refusal, code="range_elsewhere")
    return claim.host
