"""`/api/v1/ranges/{range_id}`: comparing a range with its desired state, and forgetting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from services.api.parameters import Id
from services.api.route import Call, NoBody, NoQuery, Reply, Route
from services.commands.forget import forget_images, forget_range
from services.commands.range_claims import claim_range, release_range
from services.core.ranges.range_claims import RangeClaim
from services.ports import Engine, Registry
from services.queries.verification import RangeVerification, Verifier


class ForgetQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`force`: also while the range's agent is alive."""

    force: bool = False


class VerificationQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`image`: only this one; may be repeated."""

    image: list[str] = []


class ClaimBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The host that claims a range's id."""

    host: Id


async def _claim(call: Call[NoQuery, ClaimBody]) -> Reply[RangeClaim]:
    context, now = call.context, datetime.now(UTC)
    range_id, prefix = call.path["range_id"], context.streams.prefix
    return Reply(await claim_range(context.bus, prefix, range_id, host=call.body.host, now=now))


async def _forget(call: Call[ForgetQuery, NoBody]) -> Reply[None]:
    context = call.context
    await forget_range(context.bus, context.streams, call.path["range_id"], force=call.query.force)
    return Reply(None)


async def _forget_image(call: Call[NoQuery, NoBody]) -> Reply[None]:
    context = call.context
    await forget_images(context.bus, context.streams, call.path["range_id"], [call.path["reference"]])
    return Reply(None)


async def _release(call: Call[NoQuery, NoBody]) -> Reply[None]:
    context = call.context
    await release_range(context.bus, context.streams.prefix, call.path["range_id"])
    return Reply(None)


async def _verification(call: Call[VerificationQuery, NoBody]) -> Reply[RangeVerification]:
    """By what the range's agent reported last: the API calls no address that a caller names."""
    context = call.context

    async def engine() -> Engine:
        return context.engine

    async def registry() -> Registry:
        return context.registry

    verifier = Verifier(bus=context.bus, streams=context.streams, engine=engine, registry=registry)
    range_id, mirror = call.path["range_id"], context.reads.mirror
    state = mirror.ranges.state(range_id, mirror.deployments.under_way().get(range_id, {}))
    return Reply(await verifier.verify(range_id, call.query.image, state=state))


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="DELETE",
        path="/api/v1/ranges/{range_id}",
        summary="forget a range that no longer exists; `?force=true` while its agent is alive",
        handler=_forget,
        access="operator",
        query=ForgetQuery,
        body=NoBody,
        answer=None,
        status=204,
        errors=("not_found", "range_alive"),
    ),
    Route(
        method="POST",
        path="/api/v1/ranges/{range_id}/claim",
        summary="claim a range's id for a `host`, before the range is made",
        handler=_claim,
        access="operator",
        query=NoQuery,
        body=ClaimBody,
        answer=RangeClaim,
        errors=("range_elsewhere",),
    ),
    Route(
        method="DELETE",
        path="/api/v1/ranges/{range_id}/claim",
        summary="let a range's id go: it may come up on another host",
        handler=_release,
        access="operator",
        query=NoQuery,
        body=NoBody,
        answer=None,
        status=204,
        errors=("not_found",),
    ),
    Route(
        method="GET",
        path="/api/v1/ranges/{range_id}/verification",
        summary="compare it with its desired state; `?image=` for single images",
        handler=_verification,
        query=VerificationQuery,
        body=NoBody,
        answer=RangeVerification,
        errors=("not_found", "bad_reference"),
    ),
    Route(
        method="DELETE",
        path="/api/v1/ranges/{range_id}/images/{reference:.+}",
        summary="forget a desired image; the range's engine keeps it",
        handler=_forget_image,
        access="operator",
        query=NoQuery,
        body=NoBody,
        answer=None,
        status=204,
        errors=("not_found", "bad_reference"),
    ),
)
