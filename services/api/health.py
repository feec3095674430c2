"""Health of the API: `/livez` touches nothing, `/readyz` asks every dependency, `/metrics` is for Prometheus."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Literal

import msgspec

from events.bus import BusError
from services.api.backlog import measure, measure_ranges
from services.api.layer_metrics import measure_layers
from services.api.route import ApiContext, Call, NoBody, NoQuery, Reply, Route
from services.runtime import metrics
from services.runtime.operations import METRICS_TYPE
from services.runtime.readiness import PATIENCE_SECONDS, Dependency, Readiness, ping_bus, readiness


class Liveness(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["ok"] = "ok"


async def _livez(call: Call[NoQuery, NoBody]) -> Reply[Liveness]:
    return Reply(Liveness())


async def _readyz(call: Call[NoQuery, NoBody]) -> Reply[Readiness]:
    found = await readiness(_dependencies(call.context))
    return Reply(found, status=found.http_status)


async def _metrics(call: Call[NoQuery, NoBody]) -> Reply[bytes]:
    """How far groups are behind is asked now; without Redis the last answer stays."""
    context, ranges = call.context, call.context.reads.mirror.ranges
    measure_ranges(ranges.listing.counts())
    with suppress(BusError, TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await measure(context.bus, context.streams, ranges.addressed)
            await measure_layers(context.bus, context.streams.prefix, ranges.reported_layers())
    await readiness(_dependencies(context))
    return Reply(metrics.exposition())


def _dependencies(context: ApiContext) -> dict[str, Dependency]:
    """All are required: the API answers questions about each of them."""

    pings = {
        "redis": lambda: ping_bus(context.bus, context.streams.prefix),
        "registry": context.registry.ping,
        "engine": context.engine.ping,
    }
    return {name: Dependency(ping) for name, ping in pings.items()}


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="GET",
        path="/livez",
        summary="the process answers",
        handler=_livez,
        access="open",
        query=NoQuery,
        body=NoBody,
        answer=Liveness,
    ),
    Route(
        method="GET",
        path="/readyz",
        summary="Redis, registry and host's engine answer; 503 if one does not",
        handler=_readyz,
        access="open",
        query=NoQuery,
        body=NoBody,
        answer=Readiness,
        other_statuses=(503,),
    ),
    Route(
        method="GET",
        path="/metrics",
        summary="for Prometheus",
        handler=_metrics,
        access="open",
        query=NoQuery,
        body=NoBody,
        answer=bytes,
        content_type=METRICS_TYPE,
    ),
)
