"""What people ask of the others, said on the bus: push this, deploy that, stop it, do it again.

Checked here as far as one can see from here, so that a typo is told at once and not by an event later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from events.bus import Outcome, Post, RecordConflict, Speaker
from events.envelope import Envelope, new_id
from events.messages import (
    DeploymentCancelRequested,
    DeploymentPlanned,
    DeploymentRequested,
    DeploymentRetryRequested,
    PushRequested,
)
from events.streams import Streams
from services.core.claims import Claim
from services.core.deployment import DEPLOYMENT_ID_LIMIT, Deployment, Policy
from services.core.deployment_index import DeploymentKeys
from services.core.deployment_steps import refusal_of, same_request
from services.core.plans import Plan, PlanKeys, plan_refusal
from services.core.prompts import Prompt, prompt_id, prompt_key
from services.core.references import Reference
from services.errors import BadInput, DuplicateDeployment, NotFound
from services.ports import Engine

_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[A-Za-z0-9._-]+)?")
_RANGE_ENGINE = re.compile(r"tcp://[^\s/]+/?")
_ID = (
    "it begins with a letter or digit, then come letters, digits, dots, dashes and underscores,"
    " at most {limit} characters"
)
_RULES = {
    "deployment_id": _ID.format(limit=DEPLOYMENT_ID_LIMIT),
    "range_id": _ID.format(limit=128),
    "range_ids": "of each, " + _ID.format(limit=128),
    "plan_id": _ID.format(limit=128),
    "priority": "it is a whole number from 0 to 9, 9 goes first",
}
M = TypeVar("M", DeploymentRequested, DeploymentPlanned, DeploymentCancelRequested, DeploymentRetryRequested)


async def ask_for_push(
    reference: str, *, engine: Engine, speaker: Speaker, streams: Streams, source: str
) -> dict[str, str]:
    """Publish `image.push_requested` for what the host's engine has under that name. Raises NotFound.

    Where a prompt for it is open, this is its answer; the push takes the prompt away.
    """
    name = str(Reference.parse(reference))
    image = await engine.inspect(name)
    if image is None:
        raise NotFound(f"the host's engine has no image {reference}; `cyroid-images images ls` lists those it has")
    record = await speaker.load(prompt_key(streams.prefix, prompt_id(name)))
    prompt = msgspec.json.decode(record.value, type=Prompt) if record else None
    message = PushRequested(reference=name, image_id=image.image_id, why="prompt" if prompt else "manual")
    correlation_id = prompt.correlation_id if prompt else ""
    envelope = Envelope(message=message, source=source, subject=name, correlation_id=correlation_id)
    await speaker.publish(streams.images, envelope)
    return {"reference": name, "id": envelope.id}


def deployment(
    range_id: str,
    images: Sequence[str],
    *,
    deployment_id: str | None = None,
    platform: str | None = None,
    engine_url: str | None = None,
    priority: int = 5,
) -> DeploymentRequested:
    """The command, checked as its readers will check it. Raises BadInput, BadReference."""
    if not images:
        raise BadInput("a deployment brings at least one image: name it")
    if platform is not None and not _PLATFORM.fullmatch(platform):
        raise BadInput(f"platform {platform!r} is not allowed: say OS/ARCH or OS/ARCH/VARIANT, such as linux/amd64")
    if engine_url is not None and not _RANGE_ENGINE.fullmatch(engine_url):
        raise BadInput(
            f"engine_url {engine_url!r} is not allowed: a range's engine is reached as tcp://HOST:PORT; a socket is on"
            " this machine, where only the host's own engine is"
        )
    message = DeploymentRequested(
        deployment_id=deployment_id or new_id(),
        range_id=range_id,
        images=tuple(dict.fromkeys(str(Reference.parse(image)) for image in images)),
        platform=platform,
        engine_url=engine_url,
        priority=priority,
    )
    refusal = refusal_of(_checked(message), Policy())
    if refusal is not None:
        raise BadInput(refusal.message, code=refusal.code)
    return message


def planning(
    images: Sequence[str], range_ids: Sequence[str], *, plan_id: str | None = None, platform: str | None = None
) -> DeploymentPlanned:
    """The announcement, checked as its readers will check it. Raises BadInput, BadReference."""
    if not images:
        raise BadInput("a plan announces at least one image: name it")
    message = DeploymentPlanned(
        plan_id=plan_id or new_id(),
        images=tuple(dict.fromkeys(str(Reference.parse(image)) for image in images)),
        range_ids=tuple(dict.fromkeys(range_ids)),
        platform=platform,
    )
    refusal = plan_refusal(message, Policy())
    if refusal is not None:
        raise BadInput(refusal)
    return _checked(message)


def cancelling(deployment_id: str, reason: str = "") -> DeploymentCancelRequested:
    """The command to stop one. Raises BadInput."""
    return _checked(DeploymentCancelRequested(deployment_id=deployment_id, reason=reason))


def retrying(deployment_id: str) -> DeploymentRetryRequested:
    """The command to do again what is missing of one. Raises BadInput."""
    return _checked(DeploymentRetryRequested(deployment_id=deployment_id))


async def ask_deployer(
    message: DeploymentRequested | DeploymentPlanned | DeploymentCancelRequested | DeploymentRetryRequested,
    *,
    speaker: Speaker,
    streams: Streams,
    source: str,
) -> Envelope:
    """Publish a command to the deployer. Raises DuplicateDeployment."""
    if isinstance(message, DeploymentPlanned):
        record = await speaker.load(PlanKeys(streams.prefix).record(message.plan_id))
        if record is not None and not msgspec.json.decode(record.value, type=Plan).is_same(message.images, message):
            raise DuplicateDeployment(
                f"plan {message.plan_id} exists and announces something else: choose another id, or see what it is:"
                f" cyroid-images plans show {message.plan_id}",
                code="duplicate_plan",
            )
    match message:
        case DeploymentRequested():
            subject = message.range_id
        case DeploymentPlanned():
            subject = message.plan_id
        case _:
            subject = message.deployment_id
    envelope = Envelope(message=message, source=source, subject=subject)
    if isinstance(message, DeploymentRequested):
        await _claim_and_publish(message, envelope, speaker=speaker, streams=streams)
    else:
        await speaker.publish(streams.deployments, envelope)
    return envelope


async def _claim_and_publish(
    request: DeploymentRequested, envelope: Envelope, *, speaker: Speaker, streams: Streams
) -> None:
    """The first under an id takes it in the same step; the same request again is published again, for its answer."""
    keys, claim = DeploymentKeys(streams.prefix), Claim.of(request)
    places = (keys.record(request.deployment_id), keys.claim(request.deployment_id))
    while True:
        record, claimed = await speaker.load_many(places)
        if record is not None:
            same = same_request(msgspec.json.decode(record.value, type=Deployment), request)
        else:
            same = claimed is None or Claim.parse(claimed.value) == claim
        if not same:
            raise DuplicateDeployment(
                f"deployment {request.deployment_id} exists and asks for something else: choose another id, or see"
                f" what it is: cyroid-images deployments show {request.deployment_id}"
            )
        if record is not None or claimed is not None:
            await speaker.publish(streams.deployments, envelope)
            return
        try:
            write = claim.write(keys.claim(request.deployment_id))
            await speaker.commit(Outcome(posts=(Post(streams.deployments, envelope),), records=(write,)))
        except RecordConflict:
            continue  # somebody asked in this very moment: now there is something to compare with
        return


def _checked(message: M) -> M:
    """A message made in Python is not checked by itself: this reads it as a receiver would."""
    try:
        return msgspec.json.decode(msgspec.json.encode(message), type=type(message))
    except msgspec.ValidationError as problem:
        field = str(problem).rpartition("$.")[2].rstrip("`")
        value = getattr(message, field.partition("[")[0], None)
        rule = _RULES.get(field.partition("[")[0], str(problem))
        raise BadInput(f"{field} {value!r} is not allowed: {rule}") from problem
