"""The book of ranges: what each agent said of itself, what each range should have, and what it lacks."""

from __future__ import annotations

from datetime import datetime

import msgspec

from events.bus import NOTHING, Delivery, IndexWrite, Outcome, RecordWrite
from events.envelope import Envelope
from events.messages import AgentStarted, DeploymentAdvance, ImagesChanged
from services.core.deployment import Deployment
from services.core.ranges import KnownRange, RangeKeys, WantedImage, WantedImages, believed
from services.deploying.facts import beat_engine
from services.deploying.outcomes import Desk, merged
from services.deploying.restoring import Restorer
from services.errors import BadInput
from services.telemetry import get_logger


class RangeBook:
    """Handles `agent.started` and `agent.images_changed`, and keeps the records of `services.core.ranges`."""

    def __init__(self, desk: Desk) -> None:
        self._speaker = desk.speaker
        self._streams = desk.streams
        self._writer = desk.writer
        self._restorer = Restorer(desk)
        self._clock = desk.clock
        self._keys = RangeKeys(desk.streams.prefix)
        self._log = get_logger(role="deployer")

    async def agent_started(self, delivery: Delivery) -> Outcome:
        """Remember the range, wake what waits for it, and give it again what it should have."""
        message, now = delivery.message, self._clock()
        said_at = believed(delivery.envelope.time, now)
        assert isinstance(message, AgentStarted)
        range_id = self._checked(delivery, message)
        key = self._keys.known(range_id)
        record = await self._speaker.load(key)
        known = msgspec.json.decode(record.value, type=KnownRange) if record else None
        if known is not None and said_at < known.started_at:
            return NOTHING  # word of an earlier life, overtaken by that of a later one
        said = KnownRange.said(message, said_at)
        outcomes = [
            Outcome(
                records=(RecordWrite(key, msgspec.json.encode(said), expected=record.revision if record else 0),),
                index=(IndexWrite(self._keys.known_index, range_id, now.timestamp()),),
            )
        ]
        for deployment_id in await self._speaker.members(self._writer.keys.range(range_id)):
            nudge = DeploymentAdvance(deployment_id=deployment_id, why="agent_started")
            correlation_id = delivery.envelope.correlation_id
            outcomes.append(Outcome(posts=(self._writer.advance(nudge, now, correlation_id=correlation_id),)))
        recreated = known is not None and known.engine_id != message.engine_id
        outcomes.append(await self._restore(said, now, delivery.envelope, recreated=recreated))
        return merged(*outcomes)

    async def images_changed(self, delivery: Delivery) -> Outcome:
        """Note what the range has now. What it lost of what it should have, the reconciler gives it again."""
        message, said_at = delivery.message, believed(delivery.envelope.time, self._clock())
        assert isinstance(message, ImagesChanged)
        key = self._keys.known(self._checked(delivery, message))
        record = await self._speaker.load(key)
        known = msgspec.json.decode(record.value, type=KnownRange) if record else None
        if record is None or known is None or said_at < (known.listed_at or known.started_at):
            return NOTHING  # of a range that has not announced itself, or overtaken by a later word
        listed = msgspec.structs.replace(known, images=message.images, listed_at=said_at)
        return Outcome(records=(RecordWrite(key, msgspec.json.encode(listed), expected=record.revision),))

    def _checked(self, delivery: Delivery, message: AgentStarted | ImagesChanged) -> str:
        range_id = self._streams.range_of(delivery.stream)
        if range_id != message.range_id:
            raise BadInput(f"the outbox of range {range_id} tells of range {message.range_id}: refused")
        return range_id

    async def _restore(self, known: KnownRange, now: datetime, cause: Envelope, *, recreated: bool) -> Outcome:
        record = await self._speaker.load(self._keys.wanted(known.range_id))
        wanted = msgspec.json.decode(record.value, type=WantedImages) if record else WantedImages(range_id="")
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

        None instead if the range has another engine by now; that engine's id comes first. The range's own record is
        rewritten as it is, under its revision: either this is committed before the new engine is known, and then is
        restored to it, or it conflicts and is looked at again.
        """
        known_key, wanted_key = self._keys.known(deployment.range_id), self._keys.wanted(deployment.range_id)
        known_record, record = await self._speaker.load_many([known_key, wanted_key])
        writes = []
        if known_record is not None:
            (beat,) = await self._speaker.beats([self._streams.alive(deployment.range_id)])
            known = msgspec.json.decode(known_record.value, type=KnownRange)
            engine_id = beat_engine(beat) or known.engine_id
            if deployment.engine_id is not None and engine_id != deployment.engine_id:
                return engine_id, None
            writes.append(RecordWrite(known_key, known_record.value, expected=known_record.revision))
        wanted = msgspec.json.decode(record.value, type=WantedImages) if record else None
        images = dict(wanted.images) if wanted else {}
        for image in deployment.images:
            since, before = image.arrived_at or at, images.get(image.reference)
            later = before is not None and before.since is not None and before.since > since
            if image.image_id is not None and not later:
                images[image.reference] = WantedImage(
                    reference=image.reference,
                    image_id=image.image_id,
                    diff_ids=image.diff_ids,
                    deployment_id=deployment.deployment_id,
                    since=since,
                )
        value = msgspec.json.encode(WantedImages(range_id=deployment.range_id, images=images))
        writes.append(RecordWrite(wanted_key, value, expected=record.revision if record else 0))
        return None, Outcome(records=tuple(writes))
