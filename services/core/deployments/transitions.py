"""Transitions that messages cause: requested, reported by the agent, cancelled, retried. Pure: time is an argument.

Every function takes the deployment as stored and returns a `Transition`. A message that no longer fits (an ended image,
an earlier attempt) changes nothing, so each may come late, twice or out of order.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from events.messages import DeploymentRequested, Failure, ImageFailed, ImageReady, TarRequested
from services.core.deployments.agent_messages import greet_agent, tar_requested, transfer_failed
from services.core.deployments.deployment import (
    ACTIVE,
    DEPLOYMENT_ID_LIMIT,
    Deployment,
    ImageState,
    Policy,
    parse_transfer_id,
)
from services.core.deployments.transition_builder import (
    PublishEffect,
    Transition,
    TransitionBuilder,
    ended_message,
)
from services.core.images.reference_lists import in_full, references_digest
from services.core.ranges.ranges import DesiredImage

#: The code of a failure of a commit that Redis refused (`events.bus.BusRefused`), and of images that failed for it.
COMMANDS_REFUSED = "refused"
FromAgent = ImageReady | ImageFailed | TarRequested


def asked(
    request: DeploymentRequested,
    references: tuple[str, ...],
    refusal: Failure | None,
    *,
    correlation_id: str,
    now: datetime,
    policy: Policy,
    actor: str = "",
    traceparent: str = "",
) -> Transition:
    """A new deployment. `references` are normalised; with a `refusal` it has failed before it began."""
    deployment = Deployment(
        deployment_id=request.deployment_id,
        range_id=request.range_id,
        state="running",
        asked=tuple(request.images[: policy.images]),
        images=tuple(
            ImageState(reference=reference, state="resolving", since=now, deadline=now) for reference in references
        ),
        requested_at=now,
        correlation_id=correlation_id,
        priority=request.priority,
        platform=request.platform,
        engine_url=request.engine_url,
        asked_digest=references_digest(request.images) if len(request.images) > policy.images else None,
        actor=actor,
        traceparent=traceparent,
        host=request.host or "" if request.engine_url is not None else "",
    )
    if refusal is not None:
        failed = replace(deployment, images=(), state="failed", error=refusal, ended_at=now)
        return Transition(failed, (PublishEffect(ended_message(failed)),))
    return TransitionBuilder(deployment, now, policy).done()


def restored(
    deployment_id: str,
    range_id: str,
    wanted: tuple[DesiredImage, ...],
    *,
    correlation_id: str,
    now: datetime,
    policy: Policy,
) -> Transition:
    """A deployment of content that a range had and lost: the images are pinned, whatever their tags name by now."""
    deployment = Deployment(
        deployment_id=deployment_id,
        range_id=range_id,
        state="running",
        asked=tuple(image.reference for image in wanted),
        images=tuple(
            ImageState(
                reference=image.reference,
                state="resolving",
                since=now,
                deadline=now,
                image_id=image.image_id,
                diff_ids=image.diff_ids,
                pinned=True,
            )
            for image in wanted
        ),
        requested_at=now,
        correlation_id=correlation_id,
        reason="the range lacked what it should have",
    )
    return TransitionBuilder(deployment, now, policy).done()


def refusal_of(request: DeploymentRequested, policy: Policy) -> Failure | None:
    """What is wrong with a request before anything is looked up."""
    if len(request.deployment_id) > DEPLOYMENT_ID_LIMIT:
        return Failure(
            code="bad_input",
            message=f"the deployment id has {len(request.deployment_id)} characters, at most {DEPLOYMENT_ID_LIMIT} are "
            f"possible: choose a shorter one",
        )
    if len(request.images) > policy.images:
        return Failure(
            code="bad_input",
            message=f"{len(request.images)} images in one deployment, at most {policy.images} are possible: ask for "
            f"several deployments",
        )
    return None


def same_request(deployment: Deployment, request: DeploymentRequested) -> bool:
    """Whether a request with a known id asks for the same: images by their full names, in that order.

    How urgent it is makes no difference: while the deployment is open, the latest request's priority counts.
    """
    if deployment.asked_digest is not None:
        same_images = deployment.asked_digest == references_digest(request.images)
    else:
        same_images = in_full(deployment.asked) == in_full(request.images)
    return (
        same_images
        and deployment.range_id == request.range_id
        and deployment.platform == request.platform
        and deployment.engine_url == request.engine_url
    )


def agent_said(
    deployment: Deployment, message: FromAgent, now: datetime, policy: Policy, *, said_at: datetime | None = None
) -> Transition:
    """Apply a message of the range's agent about one transfer. The caller has checked that it came from that range.

    said_at   when, by the range's own clock
    """
    draft = TransitionBuilder(deployment, now, policy)
    index = _image_of(deployment, message.transfer_id)
    if index is None or draft.images[index].ended:
        return Transition(deployment)
    if isinstance(message, ImageReady):
        _ready(draft, index, message, said_at or now)
    elif draft.images[index].state == "mounting":
        return Transition(deployment)  # the agent was not told of it yet
    elif draft.images[index].state in ACTIVE and draft.images[index].transfer_id == message.transfer_id:
        draft.change(index, absent_since=None)
        if isinstance(message, TarRequested):
            tar_requested(draft, index, message)
        else:
            transfer_failed(draft, index, message.error)
    return draft.done()


def _image_of(deployment: Deployment, transfer_id: str) -> int | None:
    parsed = parse_transfer_id(transfer_id)
    if parsed is None or parsed[0] != deployment.deployment_id or parsed[1] >= len(deployment.images):
        return None
    _, index, attempt = parsed
    image = deployment.images[index]
    return index if image.first_attempt <= attempt <= image.attempt else None


def _ready(draft: TransitionBuilder, index: int, message: ImageReady, arrived_at: datetime) -> None:
    """Apply a report that the image is there; one of an earlier attempt counts if it names the desired content."""
    image = draft.images[index]
    if message.image_id != image.image_id:
        if image.transfer_id == message.transfer_id and image.state in ACTIVE:
            text = f"the range reports {message.image_id} for {image.reference}, wanted is {image.image_id}"
            transfer_failed(draft, index, Failure(code="wrong_content", message=text, retryable=True))
        return
    # What the host did not mount is not called mounted, whatever the range says; of an earlier attempt it is not known.
    lies = message.how == "mounted" and not image.mounted and message.transfer_id == image.transfer_id
    draft.end(
        index,
        "engine reports content",
        "ready",
        how="pulled" if lies else message.how,
        arrived_at=arrived_at,
        received_bytes=message.received_bytes,
        layers_reused=message.layers_reused,
        layers_total=message.layers_total,
        not_mounted=None if message.how in {"present", "retagged"} else message.not_mounted or image.not_mounted,
    )


def agent_back(deployment: Deployment, engine_id: str | None, now: datetime, policy: Policy) -> Transition:
    """Apply the return of the range's agent. Another `engine_id` than before: its engine is a new, empty one."""
    draft = TransitionBuilder(deployment, now, policy)
    greet_agent(draft, engine_id)
    return draft.done(engine_id=engine_id or deployment.engine_id)


def push_ended(deployment: Deployment, reference: str, error: Failure | None, now: datetime) -> Deployment:
    """A push of `reference` ended, well or with an `error`: those images that wait for it are due at once."""
    images = list(deployment.images)
    for index, image in enumerate(images):
        if image.state == "pushing" and image.reference == reference:
            images[index] = replace(image, deadline=now, push_failed=error is not None, error=error)
    return replace(deployment, images=tuple(images))


def cancelled(deployment: Deployment, reason: str, now: datetime, policy: Policy) -> Transition:
    """Cancel what is not done; what is ready stays."""
    draft = TransitionBuilder(deployment, now, policy)
    if not deployment.open:
        return Transition(deployment)
    for index, image in enumerate(draft.images):
        if not image.ended:
            draft.stop_transfer(index, reason or "the deployment was cancelled")
            draft.end(index, "cancelled", "cancelled", error=image.error)
    return draft.done(reason=reason)


def commands_refused(deployment: Deployment, why: str, now: datetime, policy: Policy) -> Transition:
    """End the deployment because Redis takes no command for the range any more."""
    if not deployment.open:
        return Transition(deployment)
    draft = TransitionBuilder(deployment, now, policy)
    text = (
        f"no command can be given to range {deployment.range_id}, Redis refuses it ({why[:500]}): delete what is in the"
        " way, then retry the deployment"
    )
    for index, image in enumerate(draft.images):
        if not image.ended:
            draft.fail(index, "commands refused", COMMANDS_REFUSED, text)
    return draft.done()


def retried(deployment: Deployment, now: datetime, policy: Policy) -> Transition:
    """Repeat what is missing of an ended deployment; one that succeeded publishes that again."""
    if deployment.open:
        return Transition(deployment)
    if deployment.state == "succeeded" or not deployment.images:
        return Transition(deployment, (PublishEffect(ended_message(deployment)),))
    draft = TransitionBuilder(
        replace(deployment, state="running", wake_at=None, round=deployment.round + 1), now, policy
    )
    for index, image in enumerate(draft.images):
        if image.state in ("failed", "cancelled"):
            if not image.pinned:  # whatever the name means by now
                draft.change(index, image_id=None, diff_ids=(), provenance=None)
            draft.again(
                index,
                "retry requested",
                failures=0,
                pull_failed=False,
                push_failed=False,
                by_tar=False,
                source=None,
                error=None,
                started_at=None,
                not_mounted=None,
                not_pulled=None,
            )
    return draft.done(ended_at=None, error=None, reason="", requested_at=deployment.requested_at)


def answered_again(deployment: Deployment, priority: int | None = None) -> Transition:
    """Answer a repeated request: an ended deployment publishes its end again, an open one is at work already.

    priority   what the request says; images of an open deployment take their places in the queue by it
    """
    return (
        Transition(deployment if priority is None else replace(deployment, priority=priority))
        if deployment.open
        else Transition(deployment, (PublishEffect(ended_message(deployment)),))
    )
