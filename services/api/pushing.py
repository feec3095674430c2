"""`/api/v1/registry/push…`: a dry run of a push, and pushes of many images in one request."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from services.api.route import LARGE_BODY_LIMIT_BYTES, Call, NoBody, NoQuery, Reply, Route
from services.commands.many_pushes import RefusedPush, ask_for_pushes
from services.commands.requests import PushAsked
from services.errors import BadInput
from services.queries.push_preview import PushPreview, push_preview

ReferenceText = Annotated[str, Meta(min_length=1, max_length=1024, description="an image reference")]


class PreviewQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The image, by a name that the host's engine has."""

    reference: ReferenceText


class ManyPushesBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either the images, by names that the host's engine has, or all that the registry lacks."""

    references: Annotated[tuple[ReferenceText, ...], Meta(max_length=1000)] = ()
    all_missing: bool = False


class ManyPushes(msgspec.Struct, frozen=True, kw_only=True):
    """The pushes that were requested, and the images that were refused with the reason."""

    pushes: list[PushAsked]
    refused: list[RefusedPush]


async def _preview(call: Call[PreviewQuery, NoBody]) -> Reply[PushPreview]:
    context = call.context
    found = await push_preview(
        call.query.reference,
        engine=context.engine,
        registry=context.registry,
        bus=context.bus,
        streams=context.streams,
    )
    return Reply(found)


async def _push_many(call: Call[NoQuery, ManyPushesBody]) -> Reply[ManyPushes]:
    context, body = call.context, call.body
    if bool(body.references) is body.all_missing:
        raise BadInput("name images in `references`, or say `all_missing`: one of the two")
    asked, refused = await ask_for_pushes(
        body.references or None,
        engine=context.engine,
        registry=context.registry,
        bus=context.bus,
        streams=context.streams,
        source=context.source,
        actor=call.actor,
        key=call.keyed_id(),
    )
    return Reply(ManyPushes(pushes=asked, refused=refused), location="/api/v1/pushes")


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="GET",
        path="/api/v1/registry/push/preview",
        summary="what a push would send: `?reference=`",
        handler=_preview,
        query=PreviewQuery,
        body=NoBody,
        answer=PushPreview,
        errors=("not_found", "bad_reference", "engine_unavailable", "registry_unavailable", "transfer_failed"),
    ),
    Route(
        method="POST",
        path="/api/v1/registry/push-many",
        summary="push several images: `references`, or `all_missing` for all that the registry lacks",
        handler=_push_many,
        access="operator",
        query=NoQuery,
        body=ManyPushesBody,
        answer=ManyPushes,
        status=202,
        errors=("engine_unavailable", "transfer_failed"),
        body_limit_bytes=LARGE_BODY_LIMIT_BYTES,
        idempotent_by_key=True,
    ),
)
