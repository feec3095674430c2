"""What a message does to a deployment: asked for, said by the agent, cancelled, tried again. Pure: time is an argument.

Every function takes the deployment as stored and returns a `Step`. A message that no longer fits (an ended image, an
earlier attempt) changes nothing, so each may come late, twice or out of order.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from events.messages import DeploymentRequested, Failure, ImageFailed, ImageReady, TarRequested
from services.core.deployment import ACTIVE, DEPLOYMENT_ID_LIMIT, Deployment, ImageState, Policy, parse_transfer_id
from services.core.deployment_agent import greet_agent, transfer_failed
from services.core.deployment_draft import Draft, OfferArchive, Say, Step, ended_message
from services.core.ranges import WantedImage
from services.core.references_in_full import in_full, references_digest

FromAgent = ImageReady | ImageFailed | TarRequested


def asked(
    request: DeploymentRequested,
    references: tuple[str, ...],
    refusal: Failure | None,
    *,
    correlation_id: str,
    now: datetime,
    policy: Policy,
) -> Step:
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
    )
    if refusal is not None:
        failed = replace(deployment, images=(), state="failed", error=refusal, ended_at=now)
        return Step(failed, (Say(ended_message(failed)),))
    return Draft(deployment, now, policy).done()


def restored(
    deployment_id: str,
    range_id: str,
    wanted: tuple[WantedImage, ...],
    *,
    correlation_id: str,
    now: datetime,
    policy: Policy,
) -> Step:
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
        reason="the range was recreated empty",
    )
    return Draft(deployment, now, policy).done()


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

    How urgent it is makes no difference: the first request's priority stays.
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
) -> Step:
    """A word of the range's agent about one transfer. The caller has checked that it came from that range.

    said_at  when, by the range's own clock
    """
    draft = Draft(deployment, now, policy)
    index = _image_of(deployment, message.transfer_id)
    if index is None or draft.images[index].ended:
        return Step(deployment)
    if isinstance(message, ImageReady):
        _ready(draft, index, message, said_at or now)
    elif draft.images[index].state in ACTIVE and draft.images[index].transfer_id == message.transfer_id:
        draft.change(index, absent_since=None)
        if isinstance(message, TarRequested):
            _tar_requested(draft, index, message)
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


def _ready(draft: Draft, index: int, message: ImageReady, arrived_at: datetime) -> None:
    """Content is content: word of an earlier attempt counts as well, as long as it names the wanted image."""
    image = draft.images[index]
    if message.image_id != image.image_id:
        if image.transfer_id == message.transfer_id and image.state in ACTIVE:
            text = f"the range reports {message.image_id} for {image.reference}, wanted is {image.image_id}"
            transfer_failed(draft, index, Failure(code="wrong_content", message=text, retryable=True))
        return
    draft.end(
        index,
        "engine reports content",
        "ready",
        how=message.how,
        arrived_at=arrived_at,
        received_bytes=message.received_bytes,
        layers_reused=message.layers_reused,
        layers_total=message.layers_total,
    )


def _tar_requested(draft: Draft, index: int, message: TarRequested) -> None:
    image = draft.images[index]
    if image.offers >= draft.policy.offers:
        text = f"{image.offers} archives of {image.reference} were offered and none arrived: {message.reason.message}"
        transfer_failed(draft, index, Failure(code=message.reason.code, message=text, retryable=True))
        return
    pull_failed = image.pull_failed or image.state == "pulling"
    draft.move(
        index,
        "agent asks for tar",
        "loading",
        deadline=draft.next_check(),
        heard_at=draft.now,
        advanced_at=draft.now,
        offers=image.offers + 1,
        by_tar=True,
        pull_failed=pull_failed,
        failures=0 if image.state == "pulling" else image.failures,
    )
    draft.say(OfferArchive(index, message.transfer_id, message.diff_ids, message.layout, message.thin))


def agent_back(deployment: Deployment, engine_id: str | None, now: datetime, policy: Policy) -> Step:
    """The range's agent is there (again). Another `engine_id` than before: its engine is a new, empty one."""
    draft = Draft(deployment, now, policy)
    greet_agent(draft, engine_id)
    return draft.done(engine_id=engine_id or deployment.engine_id)


def push_ended(deployment: Deployment, reference: str, error: Failure | None, now: datetime) -> Deployment:
    """A push of `reference` ended, well or with an `error`: those images that wait for it are due at once."""
    images = list(deployment.images)
    for index, image in enumerate(images):
        if image.state == "pushing" and image.reference == reference:
            images[index] = replace(image, deadline=now, push_failed=error is not None, error=error)
    return replace(deployment, images=tuple(images))


def cancelled(deployment: Deployment, reason: str, now: datetime, policy: Policy) -> Step:
    """Stop what is not done; what is ready stays."""
    draft = Draft(deployment, now, policy)
    if not deployment.open:
        return Step(deployment)
    for index, image in enumerate(draft.images):
        if not image.ended:
            draft.stop_transfer(index, reason or "the deployment was cancelled")
            draft.end(index, "cancelled", "cancelled", error=image.error)
    return draft.done(reason=reason)


def retried(deployment: Deployment, now: datetime, policy: Policy) -> Step:
    """Do what is missing of an ended deployment; one that succeeded says so again."""
    if deployment.open:
        return Step(deployment)
    if deployment.state == "succeeded" or not deployment.images:
        return Step(deployment, (Say(ended_message(deployment)),))
    draft = Draft(replace(deployment, state="running", wake_at=None, round=deployment.round + 1), now, policy)
    for index, image in enumerate(draft.images):
        if image.state in ("failed", "cancelled"):
            fresh: dict[str, Any] = {} if image.pinned else {"image_id": None, "diff_ids": ()}
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
                **fresh,
            )
    return draft.done(ended_at=None, error=None, reason="", requested_at=deployment.requested_at)


def answered_again(deployment: Deployment) -> Step:
    """The same request once more: an ended deployment repeats its answer, an open one is at work already."""
    return Step(deployment) if deployment.open else Step(deployment, (Say(ended_message(deployment)),))
