"""The role `deployer`: brings images to ranges, and ends every deployment in exactly one outcome.

consumes  deployment.requested, deployment.planned, deployment.cancel_requested, deployment.retry_requested,
          deployment.advance (its own timers and nudges), image.pushed, image.push_failed, agent.started,
          agent.images_changed, image.ready, image.failed, image.tar_requested, layers.mounted, layers.mount_failed
emits     deployment.succeeded, deployment.failed, deployment.cancelled, deployment.requested (preheating),
          deployment.advance, image.push_requested, image.pull_requested, image.load_offered, transfer.cancelled,
          layers.mount_requested, layers.unmount_requested, range.contested, transfer.progress

A handler loads the deployment's record, finds out the facts that are due, lets the state machine decide
(services.core.deployments) and returns what the bus commits together with the acknowledgement. Nothing waits in memory.

**A range's outbox is hostile.** A transfer id counts only if it names a deployment of the range in whose outbox the
message is, and `agent.started` only about that range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from events.bus import NOTHING, BusClient, Delivery, Outcome
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
    LayersMounted,
    MountFailed,
    TarRequested,
)
from events.records import Stored
from events.streams import Streams
from events.subscription import Handlers, Subscription
from events.task_group import TaskGroup
from services.core.deployments.deployment import Deployment, Policy, parse_transfer_id
from services.core.deployments.evaluation import due, evaluate
from services.core.deployments.pull_tokens import PullTokens
from services.core.deployments.transfer_start import mount_ended
from services.core.deployments.transition_builder import Transition
from services.core.deployments.transitions import (
    COMMANDS_REFUSED,
    agent_back,
    agent_said,
    cancelled,
    commands_refused,
    push_ended,
    retried,
)
from services.core.images.references import Reference
from services.core.ranges.ranges import believed
from services.deployer.archive_origins import origins_of
from services.deployer.context import DeployerContext
from services.deployer.facts import FactFinder
from services.deployer.host_lookup import HostLookup
from services.deployer.liveness import Liveness
from services.deployer.outcomes import NEW, OutcomeWriter, merged
from services.deployer.plans import Plans
from services.deployer.push_wakeups import woken
from services.deployer.range_records import RangeRecords
from services.deployer.recent_looks import HostFinder
from services.deployer.reconciler import Reconciler
from services.deployer.requests import (
    AgentWord,
    MounterWord,
    Overtaken,
    Requests,
    deployment_of,
    deployment_of_transfer,
)
from services.deployer.slots import Slots
from services.deployer.transfer_metrics import begin
from services.errors import NotFound
from services.ports import Registry
from services.runtime.telemetry import get_logger

if TYPE_CHECKING:
    from services.content.image_signatures import ImageSignatures  # loads cryptography: 8 MB

#: A cancel may overtake its request, which was deferred: so often it is deferred itself before it is refused.
_CANCEL_ATTEMPTS = 4


class Deployer:
    """One replica of the deployer. `clock` gives aware times; tests give their own."""

    name = "deployer"

    def __init__(
        self,
        *,
        bus: BusClient,
        registry: Registry,
        streams: Streams,
        source: str,
        tar_url: str,
        hosts: HostFinder | None = None,
        host: str = "local",
        signatures: ImageSignatures | None = None,
        policy: Policy | None = None,
        pull_tokens: PullTokens | None = None,
        slots: int = 32,
        lease_seconds: float = 30.0,
        reconcile_seconds: float = 10.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._policy = policy or Policy()
        self._clock = clock
        self._handler_slots = slots
        self._lease_seconds = lease_seconds
        self._log = get_logger(role=self.name)
        self._writer = OutcomeWriter(
            streams=streams, source=source, tar_url=tar_url, policy=self._policy, pull_tokens=pull_tokens, host=host
        )
        self._keys = self._writer.keys
        self._liveness = Liveness(bus=bus, stream=streams.progress, clock=clock)
        self._finder = FactFinder(
            bus=bus,
            hosts=hosts or HostLookup(bus=bus, streams=streams, source=source, clock=clock),
            registry=registry,
            streams=streams,
            liveness=self._liveness,
            host=host,
            signatures=signatures,
            clock=clock,
        )
        context = DeployerContext(bus=bus, streams=streams, writer=self._writer, policy=self._policy, clock=clock)
        self._slots = Slots(context, self._finder)
        self._requests = Requests(context)
        self._plans = Plans(context)
        self._book = RangeRecords(context, self._plans)
        self._listening: tuple[str, ...] = ()
        begin()
        self._reconciler = Reconciler(context, self._plans, period_seconds=reconcile_seconds)

    def subscriptions(self) -> Sequence[Subscription]:
        requests, book, late = self._requests, self._book, self._requests.advance_later
        handlers = (
            Handlers()
            .on(DeploymentRequested, self._requested, key=deployment_of, give_up=requests.not_taken)
            .on(DeploymentPlanned, self._plans.planned, key=None, give_up=None)
            .on(DeploymentCancelRequested, self._cancel_requested, key=deployment_of, give_up=requests.end_refused)
            .on(DeploymentRetryRequested, self._retry_requested, key=deployment_of, give_up=requests.end_refused)
            .on(DeploymentAdvance, self._advance, key=deployment_of, give_up=requests.advance_again)
            .on(ImagePushed, self._push_ended, key=None, give_up=None)
            .on(ImagePushFailed, self._push_ended, key=None, give_up=None)
            .on(AgentStarted, book.agent_started, key=None, give_up=None)
            .on(ImagesChanged, book.images_changed, key=None, give_up=None)
            .on(ImageReady, self._agent_said, key=deployment_of_transfer, give_up=late, accept=requests.owns)
            .on(ImageFailed, self._agent_said, key=deployment_of_transfer, give_up=late, accept=requests.owns)
            .on(TarRequested, self._agent_said, key=deployment_of_transfer, give_up=late, accept=requests.owns)
            .on(LayersMounted, self._mount_ended, key=deployment_of_transfer, give_up=late)
            .on(MountFailed, self._mount_ended, key=deployment_of_transfer, give_up=late)
        )
        return (
            Subscription(
                group=self.name,
                streams=self._listened,
                handlers=handlers,
                slots=self._handler_slots,
                lease_seconds=self._lease_seconds,
                dead_stream=self._streams.dead,
                progress_stream=self._streams.progress,
            ),
        )

    async def run(self) -> None:
        """Follows progress and new ranges, hands out slots, reconciles."""
        async with TaskGroup() as tasks:
            tasks.create_task(self._liveness.follow())
            tasks.create_task(self._slots.run())
            tasks.create_task(self._reconciler.run())

    def _listened(self) -> tuple[str, ...]:
        """The streams to consume, the shared ones first: locks are kept under the first one."""
        shared = (self._streams.deployments, self._streams.deployer, self._streams.images)
        if len(self._listening) != len(self._reconciler.ranges) + len(shared):
            outboxes = (self._streams.outbox(range_id) for range_id in self._reconciler.ranges)
            self._listening = (*shared, *outboxes)
        return self._listening

    # ---- asked for ----

    async def _requested(self, delivery: Delivery[DeploymentRequested]) -> Outcome:
        """Handle a request. The range's outbox is consumed from now on, even if it is still empty."""
        self._reconciler.ranges.setdefault(delivery.message.range_id)
        return await self._requests.requested(delivery)

    async def _cancel_requested(self, delivery: Delivery[DeploymentCancelRequested]) -> Outcome:
        request = delivery.message
        try:
            stored, deployment = await self._known(request.deployment_id)
        except NotFound as unknown:
            if delivery.attempt >= _CANCEL_ATTEMPTS:
                raise
            raise Overtaken(f"{unknown}, or it is still to be taken up") from unknown
        step = cancelled(deployment, request.reason, self._clock(), self._policy)
        self._slots.hint()
        return self._writer.outcome(stored, step, self._clock(), cause=delivery.envelope)

    async def _retry_requested(self, delivery: Delivery[DeploymentRetryRequested]) -> Outcome:
        stored, deployment = await self._known(delivery.message.deployment_id)
        step = retried(deployment, self._clock(), self._policy)
        return self._writer.outcome(stored, step, self._clock(), cause=delivery.envelope)

    # ---- looked at ----

    async def _advance(self, delivery: Delivery[DeploymentAdvance]) -> Outcome:
        message, now = delivery.message, self._clock()
        stored = await self._requests.stored(message.deployment_id)
        deployment = stored.value
        if deployment is None and message.error is not None and message.reference is None:
            return self._requests.given_up(delivery)
        if deployment is None or not deployment.open:
            return NOTHING
        if message.error is not None and message.reference is None and message.error.code == COMMANDS_REFUSED:
            step = commands_refused(deployment, message.error.message, now, self._policy)
            self._slots.hint()
            return self._writer.outcome(stored, step, now, cause=delivery.envelope)
        if message.reference is not None:
            deployment = push_ended(deployment, message.reference, message.error, now)
        is_up = message.why == "agent_started"
        facts = await self._finder.facts(deployment, due(deployment, now), agent_is_up=is_up)
        step = evaluate(deployment, facts, now, self._policy)
        return await self._committed(stored, step, now, delivery, afresh=message.why == "reconcile")

    async def _push_ended(self, delivery: Delivery[ImagePushed | ImagePushFailed]) -> Outcome:
        """Wake every deployment that waits for it."""
        reference = str(Reference.parse(delivery.message.reference))
        waiting = await self._bus.members(self._keys.push(reference))
        stream, now = self._streams.deployer, self._clock()
        return woken(self._writer, stream, delivery, reference=reference, waiting=waiting, now=now)

    async def _mount_ended(self, delivery: Delivery[MounterWord]) -> Outcome:
        message, now = delivery.message, self._clock()
        parsed = parse_transfer_id(message.transfer_id)
        stored = await self._requests.stored(parsed[0]) if parsed else NEW
        deployment = stored.value
        if deployment is None or parsed is None or parsed[1] >= len(deployment.images):
            return NOTHING
        image = deployment.images[parsed[1]]
        registry = await self._finder.registry_image(image.reference, image.source)
        step = mount_ended(deployment, message, registry, now, self._policy)
        return await self._committed(stored, step, now, delivery)

    # ---- said by ranges ----

    async def _agent_said(self, delivery: Delivery[AgentWord]) -> Outcome:
        message, now = delivery.message, self._clock()
        parsed = parse_transfer_id(message.transfer_id)
        stored = await self._requests.stored(parsed[0]) if parsed else NEW
        deployment = stored.value
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
        self,
        stored: Stored[Deployment],
        step: Transition,
        now: datetime,
        delivery: Delivery[DeploymentAdvance | AgentWord | MounterWord],
        *,
        afresh: bool = False,
    ) -> Outcome:
        step, claim = await self._slots.admitted(stored.value, step, now)
        origins = await origins_of(step, self._finder)
        outcome = self._writer.outcome(stored, step, now, cause=delivery.envelope, afresh=afresh, origins=origins)
        return merged(outcome, claim)

    async def _known(self, deployment_id: str) -> tuple[Stored[Deployment], Deployment]:
        stored = await self._requests.stored(deployment_id)
        if stored.value is None:
            raise NotFound(f"there is no deployment {deployment_id}", hint="cyroid-images deployments ls")
        return stored, stored.value
