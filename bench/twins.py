"""Twins of the roles around the deployer, small enough to simulate thousands: registry-pusher, agent, tar server.

They keep the contracts of the real ones (what is consumed, what is emitted, what is verified) and do the work on the
twins of engine and registry, so that the bytes in a simulated range are really there or really are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import msgspec

from events.bus import BusError, Delivery, Outcome, Post, RecordConflict, RecordWrite, Speaker, Subscription
from events.envelope import Envelope
from events.messages import (
    AgentStarted,
    Failure,
    ImageFailed,
    ImagePushed,
    ImagePushFailed,
    ImageReady,
    Layer,
    LoadOffered,
    Message,
    PresentImage,
    PullRequested,
    PushRequested,
    TarRequested,
    TransferCancelled,
)
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.core.manifests import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest
from services.core.offers import Offer, offer_key
from services.core.references import Reference
from services.errors import BadInput, CyroidError, NotFound, RegistryUnavailable, WrongContent
from services.ports import Registry

BEAT_SECONDS = 5.0


class PusherTwin:
    """Puts images of the host's engine into the registry; blobs that are there are not sent."""

    name = "registry-pusher"

    def __init__(self, *, streams: Streams, engine: MemoryEngine, registry: Registry) -> None:
        self._streams = streams
        self._engine = engine
        self._registry = registry

    def subscription(self, lease_seconds: float) -> Subscription:
        return Subscription(
            group=self.name,
            streams=lambda: [self._streams.images],
            handlers={PushRequested: self._push},
            key=lambda envelope: envelope.subject,
            lease_seconds=lease_seconds,
            backoff_limit_seconds=5.0,
            dead_stream=self._streams.dead,
        )

    async def _push(self, delivery: Delivery) -> Outcome:
        message = delivery.message
        assert isinstance(message, PushRequested)
        try:
            said: Message = await self._pushed(message)
        except CyroidError as problem:
            said = ImagePushFailed(reference=message.reference, image_id=message.image_id, error=problem.failure())
        envelope = delivery.envelope.causes(said, source=self.name, subject=message.reference)
        return Outcome(posts=(Post(self._streams.images, envelope),))

    async def _pushed(self, message: PushRequested) -> ImagePushed:
        reference = Reference.parse(message.reference)
        image = await self._engine.inspect(message.image_id or message.reference)
        if image is None or image.image_id is None:
            raise NotFound(f"the host's engine has no {message.reference}")
        blobs = {image.image_id: self._engine.config(image.local_id)}
        blobs.update({diff_id: self._engine.store.layers[diff_id] for diff_id in image.diff_ids})
        for digest, content in blobs.items():
            if await self._registry.blob_size(reference.repository, digest) is None:
                await self._registry.put_blob(reference.repository, digest, len(content), _once(content))
        sizes = {digest: len(content) for digest, content in blobs.items()}
        manifest = Manifest.write(
            Descriptor(media_type=OCI_CONFIG, digest=image.image_id, size=sizes[image.image_id]),
            tuple(Descriptor(media_type=OCI_LAYER, digest=one, size=sizes[one]) for one in image.diff_ids),
        )
        descriptor = await self._registry.put_manifest(reference.repository, reference.registry_tag, manifest)
        return ImagePushed(
            reference=message.reference,
            repository=reference.repository,
            tag=reference.registry_tag,
            manifest_digest=descriptor.digest,
            image_id=image.image_id,
            layers=tuple(Layer(digest=one, diff_id=one, size_bytes=sizes[one]) for one in image.diff_ids),
        )


class AgentTwin:
    """Pulls, asks for a tar, loads, verifies, reports; one life of it. `engine_id` is the engine's own."""

    def __init__(
        self,
        *,
        speaker: Speaker,
        streams: Streams,
        range_id: str,
        engine: MemoryEngine,
        archives: MemoryEngine,
        clock: Callable[[], datetime],
    ) -> None:
        self._speaker = speaker
        self._streams = streams
        self._range_id = range_id
        self._engine = engine
        self._archives = archives
        self._clock = clock
        self._cancelled: set[str] = set()

    def subscription(self, lease_seconds: float) -> Subscription:
        return Subscription(
            group="agent",
            streams=lambda: [self._streams.inbox(self._range_id)],
            handlers={PullRequested: self._pull, LoadOffered: self._load, TransferCancelled: self._cancel},
            lease_seconds=lease_seconds,
            backoff_limit_seconds=5.0,
            dead_stream=self._streams.range_dead(self._range_id),
        )

    async def run(self) -> None:
        """Announces itself once, then beats for ever."""
        while True:
            try:
                await self._beat()
                await self._announce()
                break
            except BusError:
                await asyncio.sleep(1.0)
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                await self._beat()
            except BusError:
                continue

    async def _beat(self) -> None:
        beat = msgspec.json.encode({"engine_id": self._engine.engine_id})
        await self._speaker.beat(self._streams.alive(self._range_id), beat, 3 * BEAT_SECONDS)

    async def _announce(self) -> None:
        info, images = await self._engine.info(), await self._engine.images()
        message = AgentStarted(
            range_id=self._range_id,
            engine_id=info.engine_id,
            engine_version=info.version,
            store=info.store,
            platform=info.platform,
            images=tuple(
                PresentImage(references=one.references, diff_ids=one.diff_ids, image_id=one.image_id) for one in images
            ),
        )
        envelope = Envelope(message=message, source=f"agent@{self._range_id}", subject=self._range_id)
        await self._speaker.publish(self._streams.outbox(self._range_id), envelope)

    async def _pull(self, delivery: Delivery) -> Outcome:
        message = delivery.message
        assert isinstance(message, PullRequested)
        if message.transfer_id in self._cancelled:
            return Outcome()
        if await self._has(message.reference, message.image_id):
            return self._say(delivery, self._ready(message, "present"))
        try:
            if message.source is None:
                raise RegistryUnavailable("the registry is away")
            async with self._engine.pull(message.source) as progress:
                async for _ in progress:
                    pass
            await self._named(message.source, message)
        except CyroidError as problem:
            present = tuple(one for one in message.diff_ids if one in self._engine.store.layers)
            asked = TarRequested(transfer_id=message.transfer_id, reason=problem.failure(), diff_ids=present)
            return self._say(delivery, asked)
        return self._say(delivery, self._ready(message, "pulled"))

    async def _load(self, delivery: Delivery) -> Outcome:
        message = delivery.message
        assert isinstance(message, LoadOffered)
        if message.transfer_id in self._cancelled:
            return Outcome()
        if await self._has(message.reference, message.image_id):
            return self._say(delivery, self._ready(message, "present"))
        try:
            await self._redeem(message)
            known = await self._archives.inspect(message.image_id)  # a containerd store does not know it so
            async with (
                self._archives.save([message.image_id if known else message.reference]) as archive,
                self._engine.load(archive) as progress,
            ):
                async for _ in progress:
                    pass
            await self._named(message.image_id, message)
        except BadInput as problem:
            failure = Failure(code=problem.code, message=str(problem), retryable=problem.code == "used")
            return self._say(delivery, ImageFailed(transfer_id=message.transfer_id, error=failure))
        except CyroidError as problem:
            return self._say(delivery, ImageFailed(transfer_id=message.transfer_id, error=problem.failure()))
        return self._say(delivery, self._ready(message, "loaded"))

    async def _redeem(self, message: LoadOffered) -> None:
        """What the tar server does with a token: it opens one archive, once."""
        key = offer_key(self._streams.prefix, message.transfer_id)
        record = await self._speaker.load(key)
        refusal = Offer.parse(record.value).refusal(message.token, self._clock()) if record else "expired"
        if record is None or refusal:
            raise BadInput(f"the tar server refuses the token: {refusal}", code="used")
        spent = Offer.parse(record.value).used(self._clock()).encode()
        try:
            await self._speaker.commit(Outcome(records=(RecordWrite(key, spent, expected=record.revision),)))
        except RecordConflict as problem:
            raise BadInput("the tar server refuses the token: used", code="used") from problem

    async def _cancel(self, delivery: Delivery) -> Outcome:
        message = delivery.message
        assert isinstance(message, TransferCancelled)
        self._cancelled.add(message.transfer_id)
        return Outcome()

    async def _has(self, reference: str, image_id: str) -> bool:
        found = await self._engine.inspect(reference)
        return found is not None and found.image_id == image_id

    async def _named(self, source: str, message: PullRequested | LoadOffered) -> None:
        """Believe only what the engine reports, then give it the wanted name and nothing else."""
        await self._engine.tag(source, message.reference)
        if source != message.image_id:
            await self._engine.untag(source)
        if not await self._has(message.reference, message.image_id):
            raise WrongContent(f"{message.reference} is not {message.image_id}")

    def _ready(self, message: PullRequested | LoadOffered, how: str) -> ImageReady:
        return msgspec.convert(
            {"type": "image.ready.v1", "transfer_id": message.transfer_id, "image_id": message.image_id, "how": how},
            ImageReady,
        )

    def _say(self, delivery: Delivery, message: Message) -> Outcome:
        said = delivery.envelope.causes(message, source=f"agent@{self._range_id}", subject=self._range_id)
        return Outcome(posts=(Post(self._streams.outbox(self._range_id), said),))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
