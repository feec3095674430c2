"""`/api/v1/plans`: images announced before they are needed."""

from __future__ import annotations

from typing import Any

import msgspec

from services.api.route import LARGE_BODY_LIMIT_BYTES, Call, NoQuery, Reply, Route
from services.commands.requests import PlanAsked, ask_deployer, planning

_PATH = "/api/v1/plans"


class PlanBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The images that will be needed, and the ranges that will need them."""

    images: list[str]
    range_ids: list[str] = []
    plan_id: str | None = None
    platform: str | None = None


async def _plan(call: Call[NoQuery, PlanBody]) -> Reply[PlanAsked]:
    context, body = call.context, call.body
    message = planning(body.images, body.range_ids, plan_id=body.plan_id or call.keyed_id(), platform=body.platform)
    await ask_deployer(message, bus=context.bus, streams=context.streams, source=context.source, actor=call.actor)
    return Reply(PlanAsked(plan_id=message.plan_id), location=f"{_PATH}/{message.plan_id}")


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="POST",
        path=_PATH,
        summary="announce: `images`; may have `range_ids`, `plan_id`, `platform`",
        handler=_plan,
        access="operator",
        query=NoQuery,
        body=PlanBody,
        answer=PlanAsked,
        status=202,
        errors=("bad_reference", "duplicate_plan"),
        body_limit_bytes=LARGE_BODY_LIMIT_BYTES,
        idempotent_by_key=True,
    ),
)
