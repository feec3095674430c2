"""`/api/v1/deployments`: request, cancel and retry."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from events.messages import DeploymentCancelRequested, DeploymentRetryRequested
from services.api.route import LARGE_BODY_LIMIT_BYTES, Call, NoBody, NoQuery, Reply, Route
from services.commands.priority import with_priority
from services.commands.requests import DeploymentAsked, ask_deployer, cancelling, deployment, retrying
from services.queries.deployments import one_deployment

_PATH = "/api/v1/deployments"


class CancelBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reason` is recorded with the deployment."""

    reason: Annotated[str, msgspec.Meta(max_length=1000)] = "asked for over HTTP"


class PriorityBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 0 to 9; 9 goes first."""

    priority: Annotated[int, msgspec.Meta(ge=0, le=9)]


class DeployBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to deploy, and where. `services.commands.requests` checks it, as for the command line."""

    range_id: str
    images: list[str]
    deployment_id: str | None = None
    platform: str | None = None
    engine_url: str | None = None
    priority: int = 5
    host: str | None = None


async def _deploy(call: Call[NoQuery, DeployBody]) -> Reply[DeploymentAsked]:
    context, body = call.context, call.body
    message = deployment(
        body.range_id,
        body.images,
        deployment_id=body.deployment_id or call.keyed_id(),
        platform=body.platform,
        engine_url=body.engine_url,
        priority=body.priority,
        host=body.host,
        engine_networks=context.engine_networks,
    )
    await ask_deployer(message, bus=context.bus, streams=context.streams, source=context.source, actor=call.actor)
    return _asked(message.deployment_id)


async def _cancel(call: Call[NoQuery, CancelBody]) -> Reply[DeploymentAsked]:
    return await _ask(call, cancelling(call.path["deployment_id"], call.body.reason))


async def _set_priority(call: Call[NoQuery, PriorityBody]) -> Reply[DeploymentAsked]:
    context, ident = call.context, call.path["deployment_id"]
    message = await with_priority(context.bus, context.streams, ident, call.body.priority)
    await ask_deployer(message, bus=context.bus, streams=context.streams, source=context.source, actor=call.actor)
    return _asked(ident)


async def _retry(call: Call[NoQuery, NoBody]) -> Reply[DeploymentAsked]:
    return await _ask(call, retrying(call.path["deployment_id"]))


async def _ask(
    call: Call[NoQuery, Any], message: DeploymentCancelRequested | DeploymentRetryRequested
) -> Reply[DeploymentAsked]:
    context = call.context
    await one_deployment(context.bus, context.streams, message.deployment_id)  # raises NotFound
    await ask_deployer(message, bus=context.bus, streams=context.streams, source=context.source, actor=call.actor)
    return _asked(message.deployment_id)


def _asked(deployment_id: str) -> Reply[DeploymentAsked]:
    return Reply(DeploymentAsked(deployment_id=deployment_id), location=f"{_PATH}/{deployment_id}")


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="POST",
        path=_PATH,
        summary="deploy: `range_id`, `images`; may have `deployment_id`, `platform`, `engine_url`, `host`, `priority`",
        handler=_deploy,
        access="operator",
        query=NoQuery,
        body=DeployBody,
        answer=DeploymentAsked,
        status=202,
        errors=("bad_reference", "duplicate_deployment"),
        body_limit_bytes=LARGE_BODY_LIMIT_BYTES,
        idempotent_by_key=True,
    ),
    Route(
        method="POST",
        path=f"{_PATH}/{{deployment_id}}/cancel",
        summary="cancel it, and stop the engine's work for it; may have `reason`",
        handler=_cancel,
        access="operator",
        query=NoQuery,
        body=CancelBody,
        answer=DeploymentAsked,
        status=202,
        errors=("not_found",),
    ),
    Route(
        method="POST",
        path=f"{_PATH}/{{deployment_id}}/priority",
        summary="change the `priority` (0 to 9) of one that has not ended: its images wait by it",
        handler=_set_priority,
        access="operator",
        query=NoQuery,
        body=PriorityBody,
        answer=DeploymentAsked,
        status=202,
        errors=("not_found", "duplicate_deployment"),
    ),
    Route(
        method="POST",
        path=f"{_PATH}/{{deployment_id}}/retry",
        summary="retry what is missing of one that failed or was cancelled",
        handler=_retry,
        access="operator",
        query=NoQuery,
        body=NoBody,
        answer=DeploymentAsked,
        status=202,
        errors=("not_found",),
    ),
)
