"""Announcer: the last step of build, import and promote publishes what the engine now has.

An event is published only for what the engine itself reports, with the image id that it reports. Redis is asked before
long work begins, so that an hour of building is not lost. If Redis becomes unavailable meanwhile, the error says how to
publish the image later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from events.bus import BusClient, BusError, Outcome, Post
from events.envelope import Envelope
from events.messages import ImageAppeared, Push
from events.streams import Streams
from services.content.host_config import host_config
from services.core.hosts.held_images import HeldImage, HeldImages, HeldKeys
from services.core.images.image import EngineImage
from services.core.images.manifests import sha256
from services.core.images.references import Reference
from services.errors import BadReference, LayerUnreadable, RedisUnavailable, TransferFailed
from services.ports import Engine, LayerSource
from services.runtime.host_identity import HostIdentity
from services.runtime.readiness import ping_bus
from services.runtime.telemetry import get_logger

PUBLISH_TRIES = 5


def target_reference(text: str) -> str:
    """The normalised name for a new image.

    Raises BadReference for one with a digest, which follows from the content.
    """
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
        bus: BusClient,
        streams: Streams,
        source: str,
        sources: Sequence[LayerSource] = (),
        identity: HostIdentity | None = None,
        pause_seconds: float = 0.5,
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._streams = streams
        self._source = source
        self._sources = sources
        self._identity = identity
        self._held = HeldKeys(streams.prefix)
        self._pause_seconds = pause_seconds
        self._log = get_logger(role=source.partition("@")[0])

    async def check(self) -> None:
        """Check Redis and the engine before the work begins. Raises RedisUnavailable or EngineUnavailable."""
        await self._engine.ping()
        try:
            await ping_bus(self._bus, self._streams.prefix)
        except BusError as problem:
            raise RedisUnavailable(
                f"Redis is unavailable ({problem}), so the image could not be announced and nothing was begun;"
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
        actor: str = "",
    ) -> ImageAppeared:
        """Publish that `reference` appeared, as the engine has it now. Returns what was published."""
        image = await self._engine.inspect(reference)
        if image is None:
            raise TransferFailed(f"the engine said that {reference} is there, but does not have it; try again")
        host = await self._identity.get() if self._identity is not None else None
        message = kind(
            reference=reference,
            image_id=await self._image_id(image),
            size_bytes=image.size_bytes,
            platform=image.platform,
            origin=origin,
            push=push,
            host=host,
        )
        envelope = Envelope(
            message=message, source=self._source, subject=reference, correlation_id=correlation_id, actor=actor
        )
        held = HeldImage.of(image, since=envelope.time, image_id=message.image_id)
        await self._publish(envelope, reference, host, held)
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
        try:  # a containerd store tells the manifest's digest only
            return sha256(await host_config(self._sources, image))
        except LayerUnreadable as problem:
            raise TransferFailed(f"{problem}, so its image id is not known; try again") from problem

    async def _publish(self, envelope: Envelope, reference: str, host: str | None, held: HeldImage) -> None:
        """Publish, trying again with the same envelope, so that it is added once.

        That the host holds the image is recorded in the same step: who hears of it can find it.
        """
        for attempt in range(PUBLISH_TRIES):
            try:
                if host is None:
                    await self._bus.publish(self._streams.images, envelope)
                else:
                    await self._bus.commit(await self._noted(envelope, str(Reference.parse(reference)), host, held))
                return
            except BusError as problem:
                if attempt + 1 == PUBLISH_TRIES:
                    raise RedisUnavailable(
                        f"the host's engine has {reference}, but Redis is unavailable ({problem}), so no event was"
                        f" published; when Redis is back: cyroid-images images push {reference}"
                    ) from problem
            await asyncio.sleep(self._pause_seconds * 2**attempt)

    async def _noted(self, envelope: Envelope, reference: str, host: str, held: HeldImage) -> Outcome:
        stored = await self._held.images(reference).load(self._bus)
        after = (stored.value or HeldImages(reference=reference)).announced(host, held)
        noted = self._held.written(stored, after, host, held.since)
        return replace(noted, posts=(Post(self._streams.images, envelope),))
