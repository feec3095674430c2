"""The table of all routes. A test holds docs/http.md against it; `/api/v1/openapi.json` is made from it."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from services.api import (
    class_of_ranges,
    deployments,
    event_stream,
    health,
    host_images,
    hosts,
    ingests,
    operations,
    plans,
    process_settings,
    prompts,
    pushing,
    ranges,
    reads,
    registry,
    session,
    store,
)
from services.api.openapi import JsonObject, openapi
from services.api.route import Call, NoBody, NoQuery, Reply, Route


async def _openapi(call: Call[NoQuery, NoBody]) -> Reply[bytes]:
    return Reply(_encoded())


@cache
def _encoded() -> bytes:
    return msgspec.json.encode(document())


@cache
def document() -> JsonObject:
    """The OpenAPI document of this table."""
    return openapi(ROUTES)


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    *health.ROUTES,
    *session.ROUTES,
    *reads.ROUTES,
    *event_stream.ROUTES,
    *host_images.ROUTES,
    *hosts.ROUTES,
    *ingests.ROUTES,
    *prompts.ROUTES,
    *operations.ROUTES,
    *registry.ROUTES,
    *pushing.ROUTES,
    *store.ROUTES,
    *class_of_ranges.ROUTES,
    *deployments.ROUTES,
    *plans.ROUTES,
    *ranges.ROUTES,
    *process_settings.ROUTES,
    Route(
        method="GET",
        path="/api/v1/openapi.json",
        summary="this interface as an OpenAPI 3.1 document",
        handler=_openapi,
        access="open",
        query=NoQuery,
        body=NoBody,
        answer=JsonObject,
        constant=True,
    ),
)
