"""`/api/v1/class`: the ranges of a class, and how far each image is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from services.api.route import Call, NoBody, Reply, Route
from services.queries.class_view import ClassView


class ClassQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`image`: only images with this text in their reference."""

    image: Annotated[str, Meta(max_length=1024)] = ""


async def _class(call: Call[ClassQuery, NoBody]) -> Reply[ClassView]:
    reads = call.context.reads
    return Reply(reads.mirror.deployments.class_view(call.query.image, reads.as_of or datetime.now(UTC)))


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="GET",
        path="/api/v1/class",
        summary="how far each image is in each range, by their latest deployments; `?image=` for some images",
        handler=_class,
        query=ClassQuery,
        body=NoBody,
        answer=ClassView,
    ),
)
