"""Commands published on the bus: push, deploy, cancel, retry, plan.

Checked here as far as possible, so that a typo is reported at once and not by a later event.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, TypeVar

import msgspec

from events.bus import BusClient, Outcome, Post, RecordConflict
from events.envelope import Envelope, new_id
from events.messages import (
    DeploymentCancelRequested,
    DeploymentPlanned,
    DeploymentRequested,
    DeploymentRetryRequested,
    PushRequested,
)
from events.records import load_both
from events.streams import Streams
from services.commands.host_choice import push_source
from services.commands.prompts import answer_prompt
from services.core.deployments.deployment import DEPLOYMENT_ID_LIMIT, Policy
from services.core.deployments.idempotency import Claim
from services.core.deployments.index import DeploymentKeys
from services.core.deployments.plans import PlanKeys, plan_refusal
from services.core.deployments.transitions import refusal_of, same_request
from services.core.images.prompts import prompt_id, prompt_key
from services.core.images.references import Reference
from services.core.ranges.engine_networks import engine_refusal
from services.core.secrets import without_password
from services.errors import BadInput, DuplicateDeployment, NotFound, PromptAnswered
from services.ports import Engine

_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[A-Za-z0-9._-]+)?")
_RANGE_ENGINE = re.compile(r"tcp://[^\s/@]+/?")
_ID = (
    "it begins with a letter or digit, then come letters, digits, dots, dashes and underscores,"
    " at most {limit} characters"
)
_RULES = {
    "deployment_id": _ID.format(limit=DEPLOYMENT_ID_LIMIT),
    "range_id": _ID.format(limit=128),
    "range_ids": "of each, " + _ID.format(limit=128),
    "host": _ID.format(limit=128),
    "plan_id": _ID.format(limit=128),
    "priority": "it is a whole number from 0 to 9, 9 goes first",
}
#: What is repeated of a value that is wrong.
_SHOWN = 200
M = TypeVar("M", DeploymentRequested, DeploymentPlanned, DeploymentCancelRequested, DeploymentRetryRequested)


class PushAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A push that was requested. `id` is the request's, which events about the push name as their cause."""

    reference: str
    id: str
    ended: bool = False


class DeploymentAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that was requested, or whose cancel or retry was requested."""

    deployment_id: str


class DeploymentNotEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that is not waited for, or no longer waited for."""

    deployment_id: str
    ended: bool = False


class PlanAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that was announced."""

    plan_id: str


async def ask_for_push(
    reference: str,
    *,
    engine: Engine,
    bus: BusClient,
    streams: Streams,
    source: str,
    actor: str = "",
    event_id: str | None = None,
    host: str | None = None,
) -> PushAsked:
    """Publish `image.push_requested` for what `host` has under that name; None: this host, else one that holds it.

    Where a prompt for it is open, this is its answer, and is told to whoever answers later. `event_id`: the event's
    id, for a request that may come twice. Raises NotFound, EngineUnavailable for a host that is away, BusError.
    """
    found = await push_source(reference, engine=engine, bus=bus, streams=streams, host=host)
    name = found.reference
    prompt = (await prompt_key(streams.prefix, prompt_id(name)).load(bus)).value
    if prompt is not None and found.answers(prompt):
        with suppress(PromptAnswered, NotFound):  # somebody answers in this very moment: then this is one push more
            given = await answer_prompt(
                prompt.id, "push", bus=bus, streams=streams, source=source, actor=actor, event_id=event_id
            )
            return PushAsked(reference=name, id=given.push_id)
    why: Literal["prompt", "manual"] = "prompt" if prompt else "manual"
    message = PushRequested(reference=name, image_id=found.image_id, why=why, host=found.host)
    correlation_id = prompt.correlation_id if prompt else ""
    envelope = Envelope(
        message=message,
        source=source,
        subject=name,
        id=event_id or new_id(),
        correlation_id=correlation_id,
        actor=actor,
    )
    await bus.publish(streams.images, envelope)
    return PushAsked(reference=name, id=envelope.id)


def deployment(
    range_id: str,
    images: Sequence[str],
    *,
    deployment_id: str | None = None,
    platform: str | None = None,
    engine_url: str | None = None,
    engine_networks: str = "",
    priority: int = 5,
    host: str | None = None,
) -> DeploymentRequested:
    """The command, checked as its readers will check it. Raises BadInput, BadReference."""
    if not images:
        raise BadInput("a deployment brings at least one image: name it")
    if platform is not None and not _PLATFORM.fullmatch(platform):
        raise BadInput(f"platform {platform!r} is not allowed: say OS/ARCH or OS/ARCH/VARIANT, such as linux/amd64")
    if engine_url is not None and not _RANGE_ENGINE.fullmatch(engine_url):
        raise BadInput(
            f"engine_url {without_password(engine_url)!r} is not allowed: a range's engine is reached as"
            " tcp://HOST:PORT; a socket is on this machine, where only the host's own engine is"
        )
    if engine_url is not None:
        _check_network(engine_url, engine_networks)
    message = DeploymentRequested(
        deployment_id=deployment_id or new_id(),
        range_id=range_id,
        images=tuple(dict.fromkeys(str(Reference.parse(image)) for image in images)),
        platform=platform,
        engine_url=engine_url,
        priority=priority,
        host=host,
    )
    refusal = refusal_of(_checked(message), Policy())
    if refusal is not None:
        raise BadInput(refusal.message, code=refusal.code)
    return message


def _check_network(engine_url: str, engine_networks: str) -> None:
    """Raises BadInput for an engine that may not be called."""
    try:
        outside = engine_refusal(engine_url, engine_networks)
    except ValueError as problem:
        raise BadInput(f"CYROID_ENGINE_NETWORKS: {problem}", code="bad_setting") from problem
    if outside is not None:
        raise BadInput(outside)


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
    bus: BusClient,
    streams: Streams,
    source: str,
    actor: str = "",
) -> Envelope:
    """Publish a command to the deployer; `actor` asks for it. Raises DuplicateDeployment."""
    if isinstance(message, DeploymentPlanned):
        plan = (await PlanKeys(streams.prefix).record(message.plan_id).load(bus)).value
        if plan is not None and not plan.is_same(message.images, message):
            raise DuplicateDeployment(
                f"plan {message.plan_id} exists and announces something else: choose another id",
                code="duplicate_plan",
                hint=f"cyroid-images plans show {message.plan_id}",
            )
    match message:
        case DeploymentRequested():
            subject = message.range_id
        case DeploymentPlanned():
            subject = message.plan_id
        case _:
            subject = message.deployment_id
    envelope = Envelope(message=message, source=source, subject=subject, actor=actor)
    if isinstance(message, DeploymentRequested):
        await _claim_and_publish(message, envelope, bus=bus, streams=streams)
    else:
        await bus.publish(streams.deployments, envelope)
    return envelope


async def _claim_and_publish(
    request: DeploymentRequested, envelope: Envelope, *, bus: BusClient, streams: Streams
) -> None:
    """Publish the request and claim its id in one step.

    The same request again is published again, to get its answer.
    """
    keys, claim = DeploymentKeys(streams.prefix), Claim.of(request)
    record, claim_key = keys.record(request.deployment_id), keys.claim(request.deployment_id)
    while True:
        stored, claimed = await load_both(bus, record, claim_key)
        recorded = stored.value
        same = claimed.value in (None, claim) if recorded is None else same_request(recorded, request)
        if not same:
            raise DuplicateDeployment(
                f"deployment {request.deployment_id} exists and asks for something else: choose another id",
                hint=f"cyroid-images deployments show {request.deployment_id}",
            )
        if recorded is not None or claimed.value is not None:
            await bus.publish(streams.deployments, envelope)
            return
        try:
            write = claim.write(claim_key)
            await bus.commit(Outcome(posts=(Post(streams.deployments, envelope),), records=(write,)))
        except RecordConflict:
            continue  # somebody asked in this very moment: now there is something to compare with
        return


def _checked(message: M) -> M:
    """A message made in Python is not checked by itself: this reads it as a receiver would."""
    try:
        return msgspec.json.decode(msgspec.json.encode(message), type=type(message))
    except msgspec.ValidationError as problem:
        field = str(problem).rpartition("$.")[2].rstrip("`")
        name, _, index = field.partition("[")
        value = getattr(message, name, None)
        if index and isinstance(value, tuple):
            value = value[int(index.rstrip("]"))]
        shown = repr(value if not isinstance(value, str) or len(value) <= _SHOWN else f"{value[:_SHOWN]}…")
        raise BadInput(f"{field} {shown} is not allowed: {_RULES.get(name, str(problem))}") from problem
