"""The last step of build, import and promote: say on the bus what the engine now has.

An event is published only for what the engine itself reports, with the image id that it reports. Redis is asked
before long work begins, so that an hour of building does not end in nobody hearing of it; if it goes away meanwhile,
the error says how to catch up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from events.bus import BusError, Speaker
from events.envelope import Envelope
from events.messages import ImageAppeared, Push
from events.streams import Streams
from services.core.images import EngineImage
from services.core.manifests import sha256
from services.core.references import Reference
from services.errors import BadReference, LayerUnreadable, RedisUnavailable, TransferFailed
from services.ports import Engine, LayerSource
from services.telemetry import get_logger

PUBLISH_TRIES = 5


def target_reference(text: str) -> str:
    """The normalised name for a new image. Raises BadReference: a digest follows from content, nobody can choose it."""
    reference = Reference.parse(text)
    if reference.digest is not None:
        example = f"{text.partition('@')[0]}:1.0"
        raise BadReference(f"{text!r} has a digest; a new image is named by a tag, for instance {example}")
    return str(reference)


class Announcer:
    """Publishes `image.built`, `image.imported` and `image.promoted` for images that the host's engine confirms."""

    def __init__(
        self,
        *,
        engine: Engine,
        speaker: Speaker,
        streams: Streams,
        source: str,
        sources: Sequence[LayerSource] = (),
        pause_seconds: float = 0.5,
    ) -> None:
        self._engine = engine
        self._speaker = speaker
        self._streams = streams
        self._source = source
        self._sources = sources
        self._pause_seconds = pause_seconds
        self._log = get_logger(role=source.partition("@")[0])

    async def check(self) -> None:
        """Raises RedisUnavailable or EngineUnavailable before anything was begun."""
        await self._engine.ping()
        try:
            await self._speaker.load(f"{self._streams.prefix}:ping")
        except BusError as problem:
            raise RedisUnavailable(
                f"Redis is away ({problem}), nobody would hear of the image, so nothing was begun;"
                " start Redis or correct CYROID_REDIS_URL"
            ) from problem

    async def announce(
        self,
        kind: type[ImageAppeared],
        reference: str,
        *,
        origin: str,
        push: Push,
        correlation_id: str = "",
    ) -> ImageAppeared:
        """Publish that `reference` appeared, as the engine has it now. Returns what was published."""
        image = await self._engine.inspect(reference)
        if image is None:
            raise TransferFailed(f"the engine said that {reference} is there, but does not have it; try again")
        message = kind(
            reference=reference,
            image_id=await self._image_id(image),
            size_bytes=image.size_bytes,
            platform=image.platform,
            origin=origin,
            push=push,
        )
        envelope = Envelope(message=message, source=self._source, subject=reference, correlation_id=correlation_id)
        await self._publish(envelope, reference)
        self._log.info(
            "image appeared",
            image=reference,
            image_id=message.image_id,
            origin=origin,
            push=push,
            size_bytes=image.size_bytes,
            correlation_id=envelope.correlation_id,
        )
        return message

    async def _image_id(self, image: EngineImage) -> str:
        if image.image_id is not None:
            return image.image_id
        for source in self._sources:  # a containerd store tells the manifest's digest only
            try:
                return sha256(await source.config(image))
            except LayerUnreadable as problem:
                self._log.info("config not readable", source=source.name, why=str(problem))
        raise TransferFailed(f"the config of {image.local_id} cannot be read, so its image id is not known; try again")

    async def _publish(self, envelope: Envelope, reference: str) -> None:
        """The same envelope each time, so that it is added once however often this is tried."""
        for attempt in range(PUBLISH_TRIES):
            try:
                await self._speaker.publish(self._streams.images, envelope)
                return
            except BusError as problem:
                if attempt + 1 == PUBLISH_TRIES:
                    raise RedisUnavailable(
                        f"the host's engine has {reference}, but Redis is away ({problem}) and nobody heard of it;"
                        f" when Redis is back: cyroid-images images push {reference}"
                    ) from problem
            await asyncio.sleep(self._pause_seconds * 2**attempt)
