"""Deployments as they are asked for and announced: checked, normalised, stored; and what of them was given up."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from events.bus import NOTHING, Delivery, IndexWrite, Outcome, Post, Record, RecordWrite
from events.envelope import Envelope
from events.messages import (
    DeploymentAdvance,
    DeploymentCancelRequested,
    DeploymentFailed,
    DeploymentPlanned,
    DeploymentRequested,
    DeploymentRetryRequested,
    Failure,
    ImageFailed,
    ImageReady,
    Message,
    PushRequested,
    TarRequested,
)
from services.core.claims import Claim
from services.core.deployment import Deployment, Policy, parse_transfer_id
from services.core.deployment_steps import answered_again, asked, refusal_of, same_request
from services.core.plans import Plan, PlanKeys, plan_refusal
from services.core.ranges import RangeKeys
from services.core.references import Reference
from services.deploying.outcomes import Desk, Stored, merged, shared_id
from services.errors import BadInput, BadReference

_GIVEN_UP_AGAIN_SECONDS = 30.0
#: How many messages of a plan one commit holds.
_TOGETHER = 100


class Requests:
    """Handles `deployment.requested` and `deployment.planned`."""

    def __init__(self, desk: Desk) -> None:
        self._speaker = desk.speaker
        self._streams = desk.streams
        self._writer = desk.writer
        self._policy = desk.policy
        self._clock = desk.clock
        self._range_keys = RangeKeys(desk.streams.prefix)
        self._plan_keys = PlanKeys(desk.streams.prefix)

    async def stored(self, deployment_id: str) -> Stored:
        """A deployment as its record has it."""
        return _parsed(await self._speaker.load(self._writer.keys.record(deployment_id)))

    async def requested(self, delivery: Delivery) -> Outcome:
        """A new deployment, the same answer again, or a refusal that leaves the first one alone."""
        request, cause = delivery.message, delivery.envelope
        assert isinstance(request, DeploymentRequested)
        now = self._clock()
        stored, claimed = await self._stored_and_claimed(request.deployment_id)
        claim = Claim.of(request)
        if stored.deployment is not None:
            if not same_request(stored.deployment, request):
                return self._duplicate(request, cause)
            return self._writer.outcome(stored, answered_again(stored.deployment), now, cause=cause)
        if claimed is not None and claimed != claim:
            return self._duplicate(request, cause)
        references, refusal = _normalised(request, self._policy)
        step = asked(request, references, refusal, correlation_id=cause.correlation_id, now=now, policy=self._policy)
        outcome = self._writer.outcome(stored, step, now, cause=cause)
        asked_for = IndexWrite(self._range_keys.asked, request.range_id, now.timestamp())
        # One that went past `services.asking`: from now on nobody can ask there for something else.
        claims = () if claimed else (claim.write(self._writer.keys.claim(request.deployment_id)),)
        return merged(outcome, Outcome(records=claims, index=(asked_for,)))

    async def _stored_and_claimed(self, deployment_id: str) -> tuple[Stored, Claim | None]:
        keys = self._writer.keys
        record, claimed = await self._speaker.load_many([keys.record(deployment_id), keys.claim(deployment_id)])
        return _parsed(record), Claim.parse(claimed.value) if claimed is not None else None

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

    async def planned(self, delivery: Delivery) -> Outcome:
        """Images go to the registry, and as deployments of the lowest priority to those ranges that are up.

        All that is said has ids made from the plan's, so that a large plan can be committed in parts, and again: the
        same plan announced once more reaches the ranges that came up since.
        """
        plan, now = delivery.message, self._clock()
        assert isinstance(plan, DeploymentPlanned)
        refusal = plan_refusal(plan, self._policy)
        if refusal is not None:
            raise BadInput(refusal)
        references = tuple(dict.fromkeys(str(Reference.parse(text)) for text in plan.images))
        record = await self._speaker.load(self._plan_keys.record(plan.plan_id))
        before = msgspec.json.decode(record.value, type=Plan) if record else None
        if before is not None and not before.is_same(references, plan):
            text = f"plan {plan.plan_id} exists and announces something else: choose another id"
            raise BadInput(text, code="duplicate_plan")
        hearts = [self._streams.alive(range_id) for range_id in plan.range_ids]
        beats = await self._speaker.beats(hearts) if hearts else []
        up = [range_id for range_id, beat in zip(plan.range_ids, beats, strict=True) if beat is not None]
        pushes = [PushRequested(reference=reference, why="auto") for reference in references]
        requests = [_preheating(plan, range_id, references) for range_id in up]
        planned: list[tuple[str, Message, str]] = [
            *((self._streams.images, push, push.reference) for push in pushes),
            *((self._streams.deployments, request, request.deployment_id) for request in requests),
        ]
        cause, key = delivery.envelope, f"plan/{plan.plan_id}"
        more = {"key": key, "correlation_id": cause.correlation_id, "causation_id": cause.id}
        posts = [
            self._writer.shared(stream, message, about=about, now=now, **more) for stream, message, about in planned
        ]
        while len(posts) > _TOGETHER:
            await self._speaker.commit(Outcome(posts=tuple(posts[:_TOGETHER])))
            posts = posts[_TOGETHER:]
        made = {request.range_id: request.deployment_id for request in requests}
        taken = Plan(
            plan_id=plan.plan_id,
            images=references,
            range_ids=tuple(dict.fromkeys(plan.range_ids)),
            platform=plan.platform,
            announced_at=before.announced_at if before else cause.time,
            deployments={**(before.deployments if before else {}), **made},
        )
        write = RecordWrite(
            self._plan_keys.record(plan.plan_id),
            msgspec.json.encode(taken),
            expected=record.revision if record else 0,
            expires_seconds=self._policy.keep_seconds,
        )
        listed = IndexWrite(self._plan_keys.all, plan.plan_id, taken.announced_at.timestamp())
        return Outcome(posts=tuple(posts), records=(write,), index=(listed,))

    def give_up(self, envelope: Envelope, failure: Failure) -> Outcome:
        """An entry went to the dead letters: whoever waits for its deployment hears of it.

        Whether a request that was given up has a deployment (it may have been a repeated one) is for `given_up` to find
        out, on an advance that carries the failure and has the range as its subject.
        """
        message, now = envelope.message, self._clock()
        deployment_id = flight_key(envelope)
        if isinstance(message, DeploymentRequested):
            told = DeploymentAdvance(deployment_id=message.deployment_id, why="reconcile", error=failure)
            return Outcome(posts=(self._to_itself(told, message.range_id, envelope),))
        if deployment_id is None or isinstance(message, DeploymentCancelRequested | DeploymentRetryRequested):
            return NOTHING
        again = DeploymentAdvance(deployment_id=deployment_id, why="reconcile")
        if isinstance(message, DeploymentAdvance) and message.reference is None:
            again = replace(again, error=message.error)
        due_at = datetime.fromtimestamp(now.timestamp() + _GIVEN_UP_AGAIN_SECONDS, UTC)
        about = envelope.subject if again.error else deployment_id
        return Outcome(posts=(self._to_itself(again, about, envelope, due_at),))

    def _to_itself(self, message: DeploymentAdvance, about: str, cause: Envelope, due: datetime | None = None) -> Post:
        return self._writer.post(self._streams.deployer, message, about=about, now=self._clock(), cause=cause, due=due)

    def given_up(self, delivery: Delivery) -> Outcome:
        """A request without a deployment was given up: that is its end."""
        message = delivery.message
        assert isinstance(message, DeploymentAdvance)
        failed = DeploymentFailed(
            deployment_id=message.deployment_id, range_id=delivery.envelope.subject, error=message.error
        )
        stream, about = self._streams.deployments, message.deployment_id
        post = self._writer.post(stream, failed, about=about, now=self._clock(), cause=delivery.envelope)
        return Outcome(posts=(post,))


def _parsed(record: Record | None) -> Stored:
    if record is None:
        return Stored(deployment=None, revision=0)
    return Stored(deployment=msgspec.json.decode(record.value, type=Deployment), revision=record.revision)


def _preheating(plan: DeploymentPlanned, range_id: str, references: tuple[str, ...]) -> DeploymentRequested:
    """A deployment of the lowest priority."""
    deployment_id = f"preheat-{shared_id(plan.plan_id, range_id)}"
    return DeploymentRequested(
        deployment_id=deployment_id, range_id=range_id, images=references, platform=plan.platform, priority=0
    )


def flight_key(envelope: Envelope) -> str | None:
    """One step of one deployment at a time, in all replicas."""
    message = envelope.message
    if isinstance(message, ImageReady | ImageFailed | TarRequested):
        parsed = parse_transfer_id(message.transfer_id)
        return parsed[0] if parsed else None
    if isinstance(
        message, DeploymentRequested | DeploymentCancelRequested | DeploymentRetryRequested | DeploymentAdvance
    ):
        return message.deployment_id
    return None


def _normalised(request: DeploymentRequested, policy: Policy) -> tuple[tuple[str, ...], Failure | None]:
    """The references in full, each once; or why the request is refused."""
    refusal = refusal_of(request, policy)
    if refusal is not None:
        return (), refusal
    try:
        return tuple(dict.fromkeys(str(Reference.parse(text)) for text in request.images)), None
    except BadReference as problem:
        return (), problem.failure()
