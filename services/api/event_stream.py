"""`/api/v1/events`: the stream of live events."""

from __future__ import annotations

from typing import Any

from services.api.events.endpoint import EVENT_STREAM, EventStream
from services.api.route import Call, NoBody, NoQuery, Reply, Route


async def _events(call: Call[NoQuery, NoBody]) -> Reply[EventStream]:
    context = call.context
    return Reply(EventStream(bus=context.bus, feed=context.feed, mirror=context.reads.mirror))


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="GET",
        path="/api/v1/events",
        summary="live events (server-sent): a snapshot, then changes; `Last-Event-ID` goes on where it was",
        handler=_events,
        query=NoQuery,
        body=NoBody,
        answer=bytes,
        content_type=EVENT_STREAM,
        streamed=True,
    ),
)
