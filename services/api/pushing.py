"""`/api/v1/registry/push…`: a dry run of a push, and pushes of many images in one request."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from services.api.parameters import Id
from services.api.route import LARGE_BODY_LIMIT_BYTES, Call, NoBody, NoQuery, Reply, Route
from services.commands.many_pushes import ask_for_pushes
from services.core.images.push_batches import PushBatch, batch_key
from services.errors import BadInput, NotFound
from services.queries.push_preview import PushPreview, push_preview
from services.queries.read_model.rows import PushRow

ReferenceText = Annotated[str, Meta(min_length=1, max_length=1024, description="an image reference")]


class PreviewQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The image, by a name that the host's engine has."""

    reference: ReferenceText


class ManyPushesBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either the images, by names that a host's engine has, or all that the registry lacks.

    `host`: whose images they are; without it this host's, or of a host that holds them.
    """

    references: Annotated[tuple[ReferenceText, ...], Meta(max_length=1000)] = ()
    all_missing: bool = False
    host: Id | None = None


class BatchView(PushBatch, frozen=True, kw_only=True):
    """A batch, with its pushes as they are now. `counts` by state; `ended`: none of them is under way."""

    items: tuple[PushRow, ...]
    counts: dict[str, int]
    ended: bool


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


async def _push_many(call: Call[NoQuery, ManyPushesBody]) -> Reply[PushBatch]:
    context, body = call.context, call.body
    if bool(body.references) is body.all_missing:
        raise BadInput("name images in `references`, or say `all_missing`: one of the two")
    if body.host is not None and body.all_missing:
        raise BadInput("`host` is for images that are named in `references`")
    batch = await ask_for_pushes(
        body.references or None,
        engine=context.engine,
        registry=context.registry,
        bus=context.bus,
        streams=context.streams,
        source=context.source,
        actor=call.actor,
        key=call.keyed_id(),
        missing=context.reads.mirror.missing_in_registry(),
        host=body.host,
    )
    context.reads.mirror.wake()
    return Reply(batch, location=f"/api/v1/push-batches/{batch.id}")


async def _batch(call: Call[NoQuery, NoBody]) -> Reply[BatchView]:
    context, batch_id = call.context, call.path["batch_id"]
    batch = (await batch_key(context.streams.prefix, batch_id).load(context.bus)).value
    if batch is None:
        raise NotFound(f"there is no push batch {batch_id}")
    rows = context.reads.mirror.pushes.rows_of(batch)
    counts = Counter(row.state for row in rows)
    view = BatchView(
        **msgspec.structs.asdict(batch),
        items=rows,
        counts=dict(sorted(counts.items())),
        ended=all(row.ended_at is not None for row in rows),
    )
    return Reply(view)


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
        summary="push several images: `references`, of `host`; or `all_missing` for all that the registry lacks",
        handler=_push_many,
        access="operator",
        query=NoQuery,
        body=ManyPushesBody,
        answer=PushBatch,
        status=202,
        errors=("not_found", "engine_unavailable", "transfer_failed"),
        body_limit_bytes=LARGE_BODY_LIMIT_BYTES,
        idempotent_by_key=True,
    ),
    Route(
        method="GET",
        path="/api/v1/push-batches/{batch_id}",
        summary="one push of many images: the push of each, and how many are in which state",
        handler=_batch,
        query=NoQuery,
        body=NoBody,
        answer=BatchView,
        errors=("not_found",),
    ),
)
