"""Brings images of the host's engine into the registry.

Consumes `image.built.v1`, `image.imported.v1`, `image.promoted.v1` and `image.push_requested.v1` from the images stream
(group `registry-pusher`); emits `image.pushed.v1` and `image.push_failed.v1` to it.

One push per reference at a time, over all replicas: whoever comes later finds the image `present` and says so. An image
that came with `push: ask` becomes a prompt (`services.core.prompts`), which any push of it answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

from events.bus import NOTHING, Delivery, Outcome, Post, Subscription
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
from services.core import prompts
from services.core.references import Reference
from services.errors import BadReference, CyroidError, RegistryUnavailable
from services.ports import Registry
from services.pushing.ending import Account, pushed_outcome, whole
from services.pushing.image_push import ImagePush
from services.pushing.layer_forms import LayerForms
from services.pushing.tally import Tally
from services.telemetry import get_logger

GROUP = "registry-pusher"
Phase = Literal["checking", "sending", "done", "failed"]


class RegistryPusher:
    """The role. `auto_push` is asked for each image that came with `push: auto`."""

    name = "registry-pusher"

    def __init__(
        self,
        *,
        push: ImagePush,
        registry: Registry,
        forms: LayerForms,
        streams: Streams,
        source: str,
        auto_push: Callable[[], Awaitable[bool]],
        pushes_limit: int = 2,
        lease_seconds: float = 30.0,
    ) -> None:
        self._push = push
        self._registry = registry
        self._forms = forms
        self._streams = streams
        self._source = source
        self._auto_push = auto_push
        self._slots = pushes_limit
        self._lease_seconds = lease_seconds
        self._log = get_logger(role=self.name)

    def subscriptions(self) -> Sequence[Subscription]:
        return (
            Subscription(
                group=GROUP,
                streams=lambda: (self._streams.images,),
                handlers={
                    ImageBuilt: self._appeared,
                    ImageImported: self._appeared,
                    ImagePromoted: self._appeared,
                    PushRequested: self._requested,
                },
                key=_key,
                give_up=self._give_up,
                slots=self._slots,
                lease_seconds=self._lease_seconds,
                dead_stream=self._streams.dead,
                progress_stream=self._streams.progress,
            ),
        )

    async def run(self) -> None:
        """Nothing of its own to do."""

    # ---- handlers ----

    async def _appeared(self, delivery: Delivery) -> Outcome:
        message = delivery.message
        assert isinstance(message, ImageAppeared)
        if message.push == "ask":
            return self._ask(delivery.envelope, message)
        if message.push == "never" or (message.push == "auto" and not await self._auto_push()):
            return NOTHING
        return await self._do(delivery, message.reference, None)

    async def _requested(self, delivery: Delivery) -> Outcome:
        message = delivery.message
        assert isinstance(message, PushRequested)
        if message.why != "on_demand":
            return await self._do(delivery, message.reference, message.image_id)
        try:
            await self._registry.ping()
            return await self._do(delivery, message.reference, message.image_id)
        except RegistryUnavailable as problem:  # a deployment waits for this, and has another way to go
            return self._failed(delivery.envelope, problem.failure())

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
        )
        self._log.info("asking whether to push", image=reference, correlation_id=envelope.correlation_id)
        return prompts.asked(self._streams.prefix, prompt)

    async def _do(self, delivery: Delivery, reference: str, image_id: str | None) -> Outcome:
        envelope = delivery.envelope
        report = _reporter(delivery, reference)
        report(Tally(), "checking")
        account = Account(self._log, reference, envelope.correlation_id)

        def changed(tally: Tally) -> None:
            account.changed(tally)
            report(tally, "sending")

        try:
            pushed = await self._push.push(reference, image_id=image_id, changed=changed)
        except CyroidError as problem:
            report(Tally(), "failed")
            account.failed(problem)
            raise
        _reporter(delivery, pushed.reference)(whole(pushed), "done")
        account.ended(pushed)
        said = envelope.causes(pushed, source=self._source, subject=pushed.reference)
        return pushed_outcome(pushed, said, streams=self._streams, forms=self._forms)

    # ---- failures ----

    def _failed(self, envelope: Envelope, failure: Failure) -> Outcome:
        message = envelope.message
        assert isinstance(message, ImageAppeared | PushRequested)
        said = ImagePushFailed(reference=message.reference, image_id=message.image_id, error=failure)
        posted = envelope.causes(said, source=self._source, subject=message.reference)
        return Outcome(posts=(Post(self._streams.images, posted),))

    def _give_up(self, envelope: Envelope, failure: Failure) -> Outcome:
        if not isinstance(envelope.message, ImageAppeared | PushRequested):
            return NOTHING
        return self._failed(envelope, failure)


def _key(envelope: Envelope) -> str | None:
    """Single flight: all that is said of one reference is handled one after the other."""
    message = envelope.message
    if not isinstance(message, ImageAppeared | PushRequested):
        return None
    try:
        return str(Reference.parse(message.reference))
    except BadReference:
        return message.reference


def _reporter(delivery: Delivery, reference: str) -> Callable[[Tally, Phase], None]:
    def report(tally: Tally, phase: Phase) -> None:
        delivery.report(
            TransferProgress(
                transfer_id=f"push-{delivery.envelope.id}",
                reference=reference,
                kind="push",
                phase=phase,
                done_bytes=tally.done_bytes,
                total_bytes=tally.total_bytes,
                layers_done=tally.layers_done,
                layers_total=tally.layers_total,
            )
        )

    return report
