"""`/api/v1/images/adopt|reclaim|fetch` and the reclaim rules: the host engine's copies of images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from events.messages import AdoptRequested, FetchRequested, ReclaimRequested
from services.api.parameters import Id
from services.api.replacement import CHANGED, replaced
from services.api.request_reply import request_reply_client
from services.api.route import Call, NoBody, NoQuery, Reply, Route
from services.commands.host_images import AdoptionView, Fetched, ReclaimView, adoption, fetched, reclaimed
from services.core.images.reclaim_rules import ReclaimRules, reclaim_key
from services.core.images.references import Reference

Patterns = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=512)], ...], Meta(min_length=1, max_length=100)]


class AdoptBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Images by pattern (`nginx:*`, `docker.io/team/*`), and where to look for them. `host`: on whose engine."""

    patterns: Patterns
    origin: Literal["host", "registry", "both"] = "both"
    dry_run: bool = False
    host: Id | None = None


class ReclaimBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Copies on a host's engine, by pattern. `host`: on whose; without it on that of any one."""

    patterns: Patterns
    dry_run: bool = False
    host: Id | None = None


class FetchBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image of the registry. `host`: to whose engine it is brought; without it to that of any one."""

    reference: str
    host: Id | None = None


async def _adopt(call: Call[NoQuery, AdoptBody]) -> Reply[AdoptionView]:
    body = call.body
    command = AdoptRequested(patterns=body.patterns, origin=body.origin, dry_run=body.dry_run, host=body.host)
    said = await adoption(request_reply_client(call), command)
    return Reply(said, location="/api/v1/registry/images", status=200 if said.ended else 202)


async def _reclaim(call: Call[NoQuery, ReclaimBody]) -> Reply[ReclaimView]:
    command = ReclaimRequested(patterns=call.body.patterns, dry_run=call.body.dry_run, host=call.body.host)
    said = await reclaimed(request_reply_client(call), command)
    return Reply(said, location="/api/v1/images", status=200 if said.ended else 202)


async def _fetch(call: Call[NoQuery, FetchBody]) -> Reply[Fetched]:
    command = FetchRequested(reference=str(Reference.parse(call.body.reference)), host=call.body.host)
    said = await fetched(request_reply_client(call), command)
    return Reply(said, location="/api/v1/images", status=200 if said.ended else 202)


async def _rules(call: Call[NoQuery, NoBody]) -> Reply[ReclaimRules]:
    return Reply((await reclaim_key(call.context.streams.prefix).load(call.context.bus)).value or ReclaimRules())


async def _set_rules(call: Call[NoQuery, ReclaimRules]) -> Reply[ReclaimRules]:
    return await replaced(call, reclaim_key(call.context.streams.prefix), ReclaimRules())


def _post(path: str, summary: str, handler: Any, body: Any, answer: Any, *errors: str) -> Route[Any, Any, Any]:
    return Route(
        method="POST",
        path=path,
        summary=summary,
        handler=handler,
        access="operator" if answer is Fetched else "admin",
        query=NoQuery,
        body=body,
        answer=answer,
        other_statuses=() if answer is ReclaimRules else (202,),
        errors=errors,
        body_limit_bytes=128 * 1024,
    )


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    _post(
        "/api/v1/images/adopt",
        "take up images that the host's engine or the registry has already: `patterns`, `origin`, `dry_run`, `host`",
        _adopt,
        AdoptBody,
        AdoptionView,
        "not_found",
        "engine_unavailable",
    ),
    _post(
        "/api/v1/images/reclaim",
        "free the host engine's copies of what the registry has: `patterns`, `dry_run`, `host`",
        _reclaim,
        ReclaimBody,
        ReclaimView,
        "not_found",
        "engine_unavailable",
    ),
    _post(
        "/api/v1/images/fetch",
        "bring an image back from the registry to a host's engine: `reference`, `host`",
        _fetch,
        FetchBody,
        Fetched,
        "bad_reference",
        "not_found",
        "engine_unavailable",
    ),
    Route(
        method="GET",
        path="/api/v1/settings/reclaim",
        summary="which copies on the host's engine are freed",
        handler=_rules,
        query=NoQuery,
        body=NoBody,
        answer=ReclaimRules,
    ),
    _post("/api/v1/settings/reclaim", "replace the setting: `rules`", _set_rules, ReclaimRules, ReclaimRules, CHANGED),
)
