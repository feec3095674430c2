"""Requests for deployments: checked, normalised, stored; and the outcome of requests that were given up."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime

from msgspec.structs import replace

from events.bus import NOTHING, Delivery, IndexWrite, Outcome, Post, Transient
from events.envelope import Envelope
from events.messages import (
    DeploymentAdvance,
    DeploymentCancelRequested,
    DeploymentFailed,
    DeploymentRequested,
    DeploymentRetryRequested,
    Failure,
    ImageFailed,
    ImageReady,
    LayersMounted,
    MountFailed,
    TarRequested,
)
from events.records import Stored, load_both
from services.core.deployments.deployment import Deployment, Policy, parse_transfer_id
from services.core.deployments.idempotency import Claim
from services.core.deployments.transitions import COMMANDS_REFUSED, answered_again, asked, refusal_of, same_request
from services.core.images.references import Reference
from services.core.ranges.ranges import RangeKeys
from services.deployer.context import DeployerContext
from services.deployer.outcomes import merged
from services.errors import BadReference, CyroidError
from services.runtime import metrics

#: What an agent says of one transfer, and what is about one deployment.
AgentWord = ImageReady | ImageFailed | TarRequested
MounterWord = LayersMounted | MountFailed
DeploymentWord = DeploymentRequested | DeploymentCancelRequested | DeploymentRetryRequested | DeploymentAdvance

_GIVEN_UP_AGAIN_SECONDS = 30.0
_OWNERS_REMEMBERED = 10_000


class Overtaken(CyroidError, Transient):
    """A message about a deployment that is not known yet."""

    code = "overtaken"


class Requests:
    """Handles `deployment.requested`."""

    def __init__(self, context: DeployerContext) -> None:
        self._bus = context.bus
        self._streams = context.streams
        self._writer = context.writer
        self._policy = context.policy
        self._clock = context.clock
        self._range_keys = RangeKeys(context.streams.prefix)
        self._owners: OrderedDict[str, str] = OrderedDict()

    async def stored(self, deployment_id: str) -> Stored[Deployment]:
        """A deployment's record, with its revision."""
        return await self._writer.keys.record(deployment_id).load(self._bus)

    async def owns(self, delivery: Delivery[AgentWord]) -> bool:
        """Whether the range in whose outbox the message is, is the range of the deployment that it names.

        Asked before the deployment's single-flight lock is taken, so that no range can hold another's. Which
        range a deployment is for never changes, so a match is remembered; a mismatch is not.
        """
        parsed, range_id = parse_transfer_id(delivery.message.transfer_id), self._streams.range_of(delivery.stream)
        if parsed is None or range_id is None:
            return False
        if self._owners.get(parsed[0]) == range_id:
            return True
        deployment = (await self.stored(parsed[0])).value
        if deployment is None or deployment.range_id != range_id:
            return False
        self._owners[parsed[0]] = range_id
        while len(self._owners) > _OWNERS_REMEMBERED:
            self._owners.popitem(last=False)
        return True

    async def requested(self, delivery: Delivery[DeploymentRequested]) -> Outcome:
        """A new deployment, the same answer again, or a refusal that leaves the first one alone."""
        request, cause = delivery.message, delivery.envelope
        now = self._clock()
        keys = self._writer.keys
        record, claim_key = keys.record(request.deployment_id), keys.claim(request.deployment_id)
        stored, claimed = await load_both(self._bus, record, claim_key)
        claim = Claim.of(request)
        if stored.value is not None:
            if not same_request(stored.value, request):
                return self._duplicate(request, cause)
            return self._writer.outcome(stored, answered_again(stored.value, request.priority), now, cause=cause)
        if claimed.value not in (None, claim):
            return self._duplicate(request, cause)
        references, refusal = _normalised(request, self._policy)
        step = asked(
            request,
            references,
            refusal,
            correlation_id=cause.correlation_id,
            now=now,
            policy=self._policy,
            actor=cause.actor,
            traceparent=cause.traceparent or "",
        )
        outcome = self._writer.outcome(stored, step, now, cause=cause)
        asked_for = IndexWrite(self._range_keys.asked, request.range_id, now.timestamp())
        # One that went past `services.commands.requests`: from now on nobody can ask there for something else.
        claims = () if claimed.value else (claim.write(claim_key),)
        return merged(outcome, Outcome(records=claims, index=(asked_for,)))

    def _duplicate(self, request: DeploymentRequested, cause: Envelope) -> Outcome:
        """Whoever asks through CLI or HTTP was refused before; one that only publishes is told as progress.

        No end is said of it: that would be taken for the end of the deployment that has the id.
        """
        return self._writer.remark(
            f"refused another request under the id {request.deployment_id}, which asks for something else than the"
            " first: choose another id for it",
            deployment_id=request.deployment_id,
            range_id=request.range_id,
            now=self._clock(),
            cause=cause,
        )

    def not_taken(self, delivery: Delivery[DeploymentRequested], failure: Failure) -> Outcome:
        """A request went to the dead letters: its deployment gets an outcome, for clients that wait.

        Whether it has a deployment (it may have been a repeated one) is for `given_up` to find out, on an
        advance that carries the failure and has the range as its subject.
        """
        message = delivery.message
        told = DeploymentAdvance(deployment_id=message.deployment_id, why="reconcile", error=failure)
        return Outcome(posts=(self._to_itself(told, message.range_id, delivery.envelope),))

    def advance_again(self, delivery: Delivery[DeploymentAdvance], failure: Failure) -> Outcome:
        """An advance went to the dead letters: publish another one, after a while, with the same content."""
        message = delivery.message
        if failure.code == COMMANDS_REFUSED:
            return self.end_refused(delivery, failure)
        again = DeploymentAdvance(deployment_id=message.deployment_id, why="reconcile")
        if message.reference is not None or message.error is None:
            return self._later(again, again.deployment_id, delivery.envelope)
        return self._later(replace(again, error=message.error), delivery.envelope.subject, delivery.envelope)

    def advance_later(self, delivery: Delivery[AgentWord | MounterWord], failure: Failure) -> Outcome:
        """A range's message went to the dead letters: its deployment is evaluated after a while."""
        parsed = parse_transfer_id(delivery.message.transfer_id)
        if parsed is None:
            return NOTHING
        again = DeploymentAdvance(deployment_id=parsed[0], why="reconcile")
        if failure.code == COMMANDS_REFUSED:
            again = replace(again, error=failure)
        return self._later(again, again.deployment_id, delivery.envelope)

    def end_refused(self, delivery: Delivery[DeploymentWord], failure: Failure) -> Outcome:
        """Redis refused what followed from a message: the deployment is told so, and ends if it is open."""
        if failure.code != COMMANDS_REFUSED:
            return NOTHING
        deployment_id = delivery.message.deployment_id
        told = DeploymentAdvance(deployment_id=deployment_id, why="reconcile", error=failure)
        return Outcome(posts=(self._to_itself(told, delivery.envelope.subject, delivery.envelope),))

    def _later(self, message: DeploymentAdvance, about: str, cause: Envelope) -> Outcome:
        due_at = datetime.fromtimestamp(self._clock().timestamp() + _GIVEN_UP_AGAIN_SECONDS, UTC)
        return Outcome(posts=(self._to_itself(message, about, cause, due_at),))

    def _to_itself(self, message: DeploymentAdvance, about: str, cause: Envelope, due: datetime | None = None) -> Post:
        return self._writer.post(self._streams.deployer, message, about=about, now=self._clock(), cause=cause, due=due)

    def given_up(self, delivery: Delivery[DeploymentAdvance]) -> Outcome:
        """A request without a deployment was given up: the deployment fails."""
        message = delivery.message
        failed = DeploymentFailed(
            deployment_id=message.deployment_id, range_id=delivery.envelope.subject, error=message.error
        )
        metrics.deployments.labels(outcome="failed").inc()
        stream, about = self._streams.deployments, message.deployment_id
        post = self._writer.post(stream, failed, about=about, now=self._clock(), cause=delivery.envelope)
        return Outcome(posts=(post,))


def deployment_of(delivery: Delivery[DeploymentWord]) -> str:
    """The single-flight key of what is about one deployment: one step of it at a time, in all replicas."""
    return delivery.message.deployment_id


def deployment_of_transfer(delivery: Delivery[AgentWord | MounterWord]) -> str | None:
    """The single-flight key of a message of an agent or a layer-mounter about a transfer."""
    parsed = parse_transfer_id(delivery.message.transfer_id)
    return parsed[0] if parsed else None


def _normalised(request: DeploymentRequested, policy: Policy) -> tuple[tuple[str, ...], Failure | None]:
    """The references in full, each once; or why the request is refused."""
    refusal = refusal_of(request, policy)
    if refusal is not None:
        return (), refusal
    try:
        return tuple(dict.fromkeys(str(Reference.parse(text)) for text in request.images)), None
    except BadReference as problem:
        return (), problem.failure()
