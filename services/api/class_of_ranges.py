"""`/api/v1/class`: the ranges of a class, and how far each image is."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from services.api.route import Call, NoBody, Reply, Route
from services.queries.class_view import ClassView, class_view


class ClassQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`image`: only images with this text in their reference."""

    image: Annotated[str, Meta(max_length=1024)] = ""


async def _class(call: Call[ClassQuery, NoBody]) -> Reply[ClassView]:
    return Reply(await class_view(call.context.bus, call.context.streams, call.query.image))


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
