"""`/api/v1/registry/push`: the command to push an image of the host's engine."""

from __future__ import annotations

from typing import Any

import msgspec

from services.api.parameters import Id
from services.api.route import Call, NoQuery, Reply, Route
from services.commands.requests import PushAsked, ask_for_push


class PushBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The image to push, by a name that a host's engine has. `host`: which one's; else one that holds it."""

    reference: str
    host: Id | None = None


async def _push(call: Call[NoQuery, PushBody]) -> Reply[PushAsked]:
    context = call.context
    asked = await ask_for_push(
        call.body.reference,
        engine=context.engine,
        bus=context.bus,
        streams=context.streams,
        source=context.source,
        actor=call.actor,
        event_id=call.keyed_id(),
        host=call.body.host,
    )
    return Reply(asked, location=f"/api/v1/pushes/{asked.id}")


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="POST",
        path="/api/v1/registry/push",
        summary="push an image of a host's engine into the registry: `reference`, `host`",
        handler=_push,
        access="operator",
        query=NoQuery,
        body=PushBody,
        answer=PushAsked,
        status=202,
        errors=("not_found", "bad_reference", "engine_unavailable", "transfer_failed"),
        idempotent_by_key=True,
    ),
)
