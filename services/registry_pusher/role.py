"""The role `registry-pusher`: pushes images of the host's engine into the registry.

Consumes `image.built.v1`, `image.imported.v1`, `image.promoted.v1` and `image.push_requested.v1` from the images stream
(group `registry-pusher`); emits `image.pushed.v1` and `image.push_failed.v1` to it.

One push per reference at a time, over all replicas: whoever comes later finds the image `present` and publishes that.
`host_images` has the second group, `host-images`: adoption, and the host engine's copies. `host_routing` hands on what
another host's engine has; `host_presence` says that this host is there, and what its engine holds.
An image that came with `push: ask` becomes a prompt (`services.core.images.prompts`), which any push of it answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from events.bus import NOTHING, Delivery, Outcome, Post
from events.envelope import Envelope
from events.messages import (
    Failure,
    ImageAppeared,
    ImageBuilt,
    ImageImported,
    ImagePromoted,
    ImagePushFailed,
    PushRequested,
    TransferProgress,
)
from events.streams import Streams
from events.subscription import Handlers, Subscription
from services.core.images import prompts
from services.core.images.references import Reference
from services.errors import BadReference, NotFound, Rebuilt, RegistryUnavailable
from services.ports import Registry
from services.registry_pusher.host_images import HostImages
from services.registry_pusher.host_presence import HostPresence
from services.registry_pusher.host_routing import HostRouting
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.outcome import pushed_outcome
from services.registry_pusher.progress import ProgressCounters
from services.registry_pusher.recorded_push import Phase, Report, recorded_push
from services.runtime.telemetry import get_logger

GROUP = "registry-pusher"
#: What leads to a push.
PushCause = ImageAppeared | PushRequested


class RegistryPusher:
    """The role. `auto_push` is asked, with its full name, for each image that came with `push: auto`."""

    name = "registry-pusher"

    def __init__(
        self,
        *,
        push: ImagePush,
        registry: Registry,
        encodings: LayerEncodings,
        streams: Streams,
        source: str,
        auto_push: Callable[[str], Awaitable[bool]],
        host_images: HostImages | None = None,
        hosts: HostRouting | None = None,
        presence: HostPresence | None = None,
        pushes_limit: int = 2,
        lease_seconds: float = 30.0,
    ) -> None:
        self._push = push
        self._registry = registry
        self._encodings = encodings
        self._streams = streams
        self._source = source
        self._auto_push = auto_push
        self._host_images = host_images
        self._hosts = hosts
        self._presence = presence
        self._slots = pushes_limit
        self._lease_seconds = lease_seconds
        self._log = get_logger(role=self.name)

    def subscriptions(self) -> Sequence[Subscription]:
        parts = [part for part in (self._host_images, self._presence) if part is not None]
        return (self._pushes(), *(part.subscription() for part in parts))

    def _pushes(self) -> Subscription:
        return Subscription(
            group=GROUP,
            streams=lambda: (self._streams.images, *(self._hosts.inbox if self._hosts is not None else ())),
            handlers=Handlers()
            .on(ImageBuilt, self._appeared, key=_reference, give_up=self._failed)
            .on(ImageImported, self._appeared, key=_reference, give_up=self._failed)
            .on(ImagePromoted, self._appeared, key=_reference, give_up=self._failed)
            .on(PushRequested, self._requested, key=_reference, give_up=self._failed),
            slots=self._slots,
            lease_seconds=self._lease_seconds,
            dead_stream=self._streams.dead,
            progress_stream=self._streams.progress,
        )

    async def run(self) -> None:
        """Says that the host is there; all else is handling messages."""
        if self._presence is not None:
            await self._presence.run()

    # ---- handlers ----

    async def _appeared(self, delivery: Delivery[ImageAppeared]) -> Outcome:
        message = delivery.message
        if message.push == "ask":
            return self._ask(delivery.envelope, message)
        if message.push == "never":
            return NOTHING
        if message.push == "auto" and not await self._auto_push(_full_name(message.reference)):
            return NOTHING
        image_id = message.image_id if self._hosts is not None else None
        request = PushRequested(reference=message.reference, image_id=image_id, why="auto", host=message.host)
        return await self._route(delivery, request)

    async def _requested(self, delivery: Delivery[PushRequested]) -> Outcome:
        message = delivery.message
        if message.why != "on_demand":
            return await self._route(delivery, message)
        try:
            await self._registry.ping()
            return await self._route(delivery, message)
        except RegistryUnavailable as problem:  # a deployment waits for this, and has another way to go
            return self._failed(delivery, problem.failure())

    async def _route(self, delivery: Delivery[PushCause], request: PushRequested) -> Outcome:
        """Push it here, or hand it on to the host that has it."""
        hosts = self._hosts
        if hosts is None:
            return await self._do(delivery, request.reference, request.image_id)
        there = await hosts.elsewhere(delivery.stream, request)
        if there is not None:
            return hosts.handed_on(delivery.envelope, request, there)
        try:
            return await self._do(delivery, request.reference, request.image_id)
        except (NotFound, Rebuilt) as problem:
            further = await hosts.next_host(request) if request.host is None else None
            if further is not None:
                return hosts.handed_on(delivery.envelope, further[1], further[0])
            ours = request.host is not None or await hosts.is_alone()
            if not (ours and request.why == "auto" and isinstance(problem, Rebuilt)):
                raise
        return await self._do(delivery, request.reference, None)  # it was announced, and built again since

    def _ask(self, envelope: Envelope, message: ImageAppeared) -> Outcome:
        reference = str(Reference.parse(message.reference))
        prompt = prompts.Prompt(
            id=prompts.prompt_id(reference),
            reference=reference,
            image_id=message.image_id,
            asked_at=datetime.now(UTC),
            size_bytes=message.size_bytes,
            origin=message.origin,
            correlation_id=envelope.correlation_id,
            host=message.host,
        )
        self._log.info("asking whether to push", image=reference, correlation_id=envelope.correlation_id)
        return prompts.asked(self._streams.prefix, prompt)

    async def _do(self, delivery: Delivery[PushCause], reference: str, image_id: str | None) -> Outcome:
        envelope = delivery.envelope
        pushed = await recorded_push(
            self._push,
            reference,
            image_id=image_id,
            actor=envelope.actor,
            source=envelope.source,
            log=self._log,
            correlation_id=envelope.correlation_id,
            host=await self._hosts.mine() if self._hosts is not None else None,
            report=_reporter(delivery, reference),
        )
        said = envelope.causes(pushed, source=self._source, subject=pushed.reference)
        return pushed_outcome(pushed, said, streams=self._streams, encodings=self._encodings)

    # ---- failures ----

    def _failed(self, delivery: Delivery[PushCause], failure: Failure) -> Outcome:
        """The outcome that tells those who wait that the push failed."""
        message = delivery.message
        said = ImagePushFailed(reference=message.reference, image_id=message.image_id, error=failure)
        posted = delivery.envelope.causes(said, source=self._source, subject=message.reference)
        return Outcome(posts=(Post(self._streams.images, posted),))


def _reference(delivery: Delivery[PushCause]) -> str:
    """The single-flight key: all messages about one reference are handled one after the other."""
    return _full_name(delivery.message.reference)


def _full_name(text: str) -> str:
    """The reference in full; an invalid one stays as it is, for the push to refuse it."""
    try:
        return str(Reference.parse(text))
    except BadReference:
        return text


def _reporter(delivery: Delivery[PushCause], text: str) -> Report:
    """Progress under the full name, so that those who wait for the image find it."""
    reference = _full_name(text)

    def report(counters: ProgressCounters, phase: Phase) -> None:
        delivery.report(
            TransferProgress(
                transfer_id=f"push-{delivery.envelope.id}",
                reference=reference,
                kind="push",
                phase=phase,
                done_bytes=counters.done_bytes,
                total_bytes=counters.total_bytes,
                layers_done=counters.layers_done,
                layers_total=counters.layers_total,
                layers=counters.told_layers(),
            )
        )

    return report
