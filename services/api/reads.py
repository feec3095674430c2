"""The reads of `services.api.lists` as routes."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from services.api.lists import deployments, images, ingests, operations, pushes, ranges
from services.api.lists.read import Read
from services.api.route import Call, NoBody, Reply, Route

Q = TypeVar("Q", bound=msgspec.Struct)
A = TypeVar("A")


def route_of(read: Read[Q, A]) -> Route[Q, NoBody, A]:
    """The route of one read. Its handler has the function's name, which the operation's id is made of."""

    async def handle(call: Call[Q, NoBody]) -> Reply[A]:
        return Reply(await read.function(call.context.reads, call.path, call.query))

    handle.__name__ = f"read_{read.function.__name__}"
    handle.__module__ = read.function.__module__
    return Route(
        method="GET",
        path=read.path,
        summary=read.summary,
        handler=handle,
        query=read.query,
        body=NoBody,
        answer=read.answer,
        errors=read.errors,
    )


READS: tuple[Read[Any, Any], ...] = (
    *images.READS,
    *deployments.READS,
    *ranges.READS,
    *pushes.READS,
    *ingests.READS,
    *operations.READS,
)
ROUTES: tuple[Route[Any, Any, Any], ...] = tuple(map(route_of, READS))
