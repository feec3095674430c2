"""The deployer: brings images to ranges, and ends every deployment in exactly one outcome.

consumes  deployment.requested, deployment.planned, deployment.cancel_requested, deployment.retry_requested,
          deployment.advance (its own timers and nudges), image.pushed, image.push_failed,
          agent.started, agent.images_changed, image.ready, image.failed, image.tar_requested
emits     deployment.succeeded, deployment.failed, deployment.cancelled, deployment.requested (preheating),
          deployment.advance, image.push_requested, image.pull_requested, image.load_offered, transfer.cancelled,
          transfer.progress

A handler loads the deployment's record, finds out the facts that are due, lets the machine decide
(`services.core.deployment_look`, `deployment_steps`) and returns what the bus commits together with the
acknowledgement. Nothing waits in memory, so any replica takes the next step.

**A range's outbox is hostile.** A transfer id is believed only if it names a deployment of the very range in whose
outbox it was said, and `agent.started` only about that range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from events.bus import NOTHING, Delivery, Handler, Outcome, Speaker, Subscription, Transient
from events.messages import (
    AgentStarted,
    DeploymentAdvance,
    DeploymentCancelRequested,
    DeploymentPlanned,
    DeploymentRequested,
    DeploymentRetryRequested,
    ImageFailed,
    ImagePushed,
    ImagePushFailed,
    ImageReady,
    ImagesChanged,
    Message,
    TarRequested,
)
from events.streams import Streams
from events.task_group import TaskGroup
from services.core.deployment import Deployment, Policy, parse_transfer_id
from services.core.deployment_draft import OfferArchive, Step
from services.core.deployment_look import due, look
from services.core.deployment_steps import (
    agent_back,
    agent_said,
    cancelled,
    push_ended,
    retried,
)
from services.core.ranges import believed
from services.core.references import Reference
from services.deploying.facts import Finder
from services.deploying.outcomes import Desk, Layers, Stored, Writer, merged
from services.deploying.range_book import RangeBook
from services.deploying.reconciling import Reconciler
from services.deploying.requests import Requests, flight_key
from services.deploying.signs import Signs
from services.deploying.slots import Slots
from services.errors import CyroidError, NotFound
from services.ports import Engine, LayerSource, Registry
from services.telemetry import get_logger

#: A cancel may overtake its request, which was put aside: so often it is put aside itself before it is refused.
_CANCEL_ATTEMPTS = 4


def utc_now() -> datetime:
    return datetime.now(UTC)


class Overtaken(CyroidError, Transient):
    """Word about a deployment that nobody knows yet."""

    code = "overtaken"
    retryable = True


class Deployer:
    """One replica of the deployer. `clock` gives aware times; tests give their own."""

    name = "deployer"

    def __init__(
        self,
        *,
        speaker: Speaker,
        engine: Engine,
        registry: Registry,
        streams: Streams,
        source: str,
        tar_url: str,
        sources: Sequence[LayerSource] = (),
        policy: Policy | None = None,
        slots: int = 8,
        lease_seconds: float = 30.0,
        reconcile_seconds: float = 10.0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._speaker = speaker
        self._streams = streams
        self._policy = policy or Policy()
        self._clock = clock
        self._handler_slots = slots
        self._lease_seconds = lease_seconds
        self._log = get_logger(role=self.name)
        self._writer = Writer(streams=streams, source=source, tar_url=tar_url, policy=self._policy)
        self._keys = self._writer.keys
        self._signs = Signs(speaker=speaker, stream=streams.progress, clock=clock)
        self._finder = Finder(
            speaker=speaker, engine=engine, registry=registry, streams=streams, signs=self._signs, sources=sources
        )
        desk = Desk(speaker=speaker, streams=streams, writer=self._writer, policy=self._policy, clock=clock)
        self._slots = Slots(desk, self._finder)
        self._requests = Requests(desk)
        self._book = RangeBook(desk)
        self._listening: list[str] = []
        self._reconciler = Reconciler(desk, period_seconds=reconcile_seconds)

    def subscriptions(self) -> Sequence[Subscription]:
        handlers: dict[type[Message], Handler] = {
            DeploymentRequested: self._requested,
            DeploymentPlanned: self._requests.planned,
            DeploymentCancelRequested: self._cancel_requested,
            DeploymentRetryRequested: self._retry_requested,
            DeploymentAdvance: self._advance,
            ImagePushed: self._push_ended,
            ImagePushFailed: self._push_ended,
            AgentStarted: self._book.agent_started,
            ImagesChanged: self._book.images_changed,
            ImageReady: self._agent_said,
            ImageFailed: self._agent_said,
            TarRequested: self._agent_said,
        }
        return (
            Subscription(
                group=self.name,
                streams=self._listened,
                handlers=handlers,
                key=flight_key,
                give_up=self._requests.give_up,
                slots=self._handler_slots,
                lease_seconds=self._lease_seconds,
                dead_stream=self._streams.dead,
                progress_stream=self._streams.progress,
            ),
        )

    async def run(self) -> None:
        """Follows progress and new ranges, hands out slots, reconciles."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._signs.follow())
            tasks.create_task(self._slots.run())
            tasks.create_task(self._reconciler.run())

    def _listened(self) -> list[str]:
        """The shared streams first: locks are kept under the first. Ranges only ever become more."""
        shared = (self._streams.deployments, self._streams.deployer, self._streams.images)
        if len(self._listening) != len(self._reconciler.ranges) + len(shared):
            outboxes = (self._streams.outbox(range_id) for range_id in self._reconciler.ranges)
            self._listening = [*shared, *outboxes]
        return self._listening

    # ---- asked for ----

    async def _requested(self, delivery: Delivery) -> Outcome:
        """The range's outbox is listened to from now on, even if it never said a word yet."""
        request = delivery.message
        assert isinstance(request, DeploymentRequested)
        self._reconciler.ranges.setdefault(request.range_id)
        return await self._requests.requested(delivery)

    async def _cancel_requested(self, delivery: Delivery) -> Outcome:
        request = delivery.message
        assert isinstance(request, DeploymentCancelRequested)
        try:
            stored, deployment = await self._known(request.deployment_id)
        except NotFound as unknown:
            if delivery.attempt >= _CANCEL_ATTEMPTS:
                raise
            raise Overtaken(f"{unknown}, or it is still to be taken up") from unknown
        step = cancelled(deployment, request.reason, self._clock(), self._policy)
        self._slots.hint()
        return self._writer.outcome(stored, step, self._clock(), cause=delivery.envelope)

    async def _retry_requested(self, delivery: Delivery) -> Outcome:
        request = delivery.message
        assert isinstance(request, DeploymentRetryRequested)
        stored, deployment = await self._known(request.deployment_id)
        step = retried(deployment, self._clock(), self._policy)
        return self._writer.outcome(stored, step, self._clock(), cause=delivery.envelope)

    # ---- looked at ----

    async def _advance(self, delivery: Delivery) -> Outcome:
        message, now = delivery.message, self._clock()
        assert isinstance(message, DeploymentAdvance)
        stored = await self._requests.stored(message.deployment_id)
        deployment = stored.deployment
        if deployment is None and message.error is not None and message.reference is None:
            return self._requests.given_up(delivery)
        if deployment is None or not deployment.open:
            return NOTHING
        if message.reference is not None:
            deployment = push_ended(deployment, message.reference, message.error, now)
        is_up = message.why == "agent_started"
        facts = await self._finder.facts(deployment, due(deployment, now), agent_is_up=is_up)
        step = look(deployment, facts, now, self._policy)
        return await self._committed(stored, step, now, delivery, afresh=message.why == "reconcile")

    async def _push_ended(self, delivery: Delivery) -> Outcome:
        """Tell every deployment that waits for it to look."""
        message, now = delivery.message, self._clock()
        assert isinstance(message, ImagePushed | ImagePushFailed)
        error = message.error if isinstance(message, ImagePushFailed) else None
        reference = str(Reference.parse(message.reference))
        waiting = await self._speaker.members(self._keys.push(reference))
        posts = (
            self._writer.shared(
                self._streams.deployer,
                DeploymentAdvance(
                    deployment_id=deployment_id,
                    why="push_failed" if error else "pushed",
                    reference=reference,
                    image_id=message.image_id,
                    error=error,
                ),
                about=deployment_id,
                now=now,
                key=delivery.envelope.id,
                correlation_id=delivery.envelope.correlation_id,
                causation_id=delivery.envelope.id,
            )
            for deployment_id in waiting
        )
        return Outcome(posts=tuple(posts))

    # ---- said by ranges ----

    async def _agent_said(self, delivery: Delivery) -> Outcome:
        message, now = delivery.message, self._clock()
        assert isinstance(message, ImageReady | ImageFailed | TarRequested)
        parsed = parse_transfer_id(message.transfer_id)
        stored = await self._requests.stored(parsed[0]) if parsed else Stored(deployment=None, revision=0)
        deployment = stored.deployment
        range_id = self._streams.range_of(delivery.stream)
        if deployment is None or deployment.range_id != range_id:
            self._log.warning("not a transfer of this range", range=range_id, transfer=message.transfer_id)
            return NOTHING
        if not deployment.open:
            return NOTHING
        said_at = believed(delivery.envelope.time, now)
        step = agent_said(deployment, message, now, self._policy, said_at=said_at)
        self._slots.hint()
        if step.deployment.state != "succeeded":
            return await self._committed(stored, step, now, delivery)
        engine_id, remembered = await self._book.remembered(step.deployment, said_at)
        if remembered is None:  # this was the last word of an engine that is no more
            step = agent_back(deployment, engine_id, now, self._policy)
            return await self._committed(stored, step, now, delivery)
        return merged(await self._committed(stored, step, now, delivery), remembered)

    # ---- inside ----

    async def _committed(
        self, stored: Stored, step: Step, now: datetime, delivery: Delivery, *, afresh: bool = False
    ) -> Outcome:
        step, claim = await self._slots.admitted(stored.deployment, step, now)
        layers = await self._offered_layers(step)
        outcome = self._writer.outcome(stored, step, now, cause=delivery.envelope, afresh=afresh, layers=layers)
        return merged(outcome, claim)

    async def _offered_layers(self, step: Step) -> Layers:
        """The layers as an engine pulled them from the registry: an archive in OCI layout has to name them so."""
        offered = [effect.index for effect in step.effects if isinstance(effect, OfferArchive)]
        images = {index: step.deployment.images[index] for index in offered}
        return {index: await self._finder.blobs(image) for index, image in images.items()}

    async def _known(self, deployment_id: str) -> tuple[Stored, Deployment]:
        stored = await self._requests.stored(deployment_id)
        if stored.deployment is None:
            raise NotFound(f"there is no deployment {deployment_id}: see `cyroid-images deployments ls`")
        return stored, stored.deployment
