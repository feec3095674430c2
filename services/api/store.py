"""`/api/v1/registry/…` about the store itself, `DELETE /api/v1/images/…`, and settings that change while it runs."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from events.messages import (
    CollectRequested,
    Digest,
    ImageDeleteRequested,
    RestoreRequested,
    RetentionRequested,
)
from services.api.replacement import CHANGED, replaced
from services.api.request_reply import request_reply_client
from services.api.route import Call, NoBody, NoQuery, Reply, Route
from services.commands.store import (
    Collection,
    Deletion,
    Restored,
    RetentionView,
    collection,
    deletion,
    restoration,
    retention,
)
from services.core.images.auto_push import AutoPush, auto_push_key
from services.core.images.references import Reference
from services.core.store.figures import StoreDetails, StoreFigures, details_key, figures_key
from services.core.store.growth import StoreGrowth, growth_key
from services.core.store.quarantine import Quarantine, quarantine_key
from services.core.store.retention import RetentionRules, retention_key
from services.errors import NotFound

_NOT_MEASURED = "the store was not measured yet: ask for a collection, or a dry run of one"


class DeleteQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`dry_run`: only say what would go; `force`: also what somebody needs."""

    dry_run: bool = False
    force: bool = False


class CollectBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`now` frees what was set aside ten minutes ago or earlier."""

    dry_run: bool = False
    scrub: bool = False
    now: bool = False


class RestoreBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Digests of blobs, or of manifests to be brought back with all that they name."""

    digests: Annotated[tuple[Digest, ...], Meta(min_length=1, max_length=100)]


class RetentionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without `dry_run` what the rules do not keep is deleted."""

    dry_run: bool = False


async def _delete(call: Call[DeleteQuery, NoBody]) -> Reply[Deletion]:
    name = str(Reference.parse(call.path["reference"]))
    command = ImageDeleteRequested(reference=name, force=call.query.force, dry_run=call.query.dry_run)
    said = await deletion(request_reply_client(call), command)
    return Reply(said, status=200 if said.ended else 202)


async def _collect(call: Call[NoQuery, CollectBody]) -> Reply[Collection]:
    body = call.body
    keep_seconds = 0.0 if body.now else None
    command = CollectRequested(dry_run=body.dry_run, scrub=body.scrub, keep_seconds=keep_seconds)
    said = await collection(request_reply_client(call), command)
    return Reply(said, location="/api/v1/registry/figures", status=200 if said.ended else 202)


async def _figures(call: Call[NoQuery, NoBody]) -> Reply[StoreFigures]:
    found = (await figures_key(call.context.streams.prefix).load(call.context.bus)).value
    if found is None:
        raise NotFound(_NOT_MEASURED)
    return Reply(found)


async def _details(call: Call[NoQuery, NoBody]) -> Reply[StoreDetails]:
    found = (await details_key(call.context.streams.prefix).load(call.context.bus)).value
    if found is None:
        raise NotFound(_NOT_MEASURED)
    return Reply(found)


async def _growth(call: Call[NoQuery, NoBody]) -> Reply[StoreGrowth]:
    return Reply((await growth_key(call.context.streams.prefix).load(call.context.bus)).value or StoreGrowth())


async def _quarantine(call: Call[NoQuery, NoBody]) -> Reply[Quarantine]:
    found = (await quarantine_key(call.context.streams.prefix).load(call.context.bus)).value
    if found is None:
        raise NotFound("there was no collection yet, so nothing is in quarantine")
    return Reply(found)


async def _restore(call: Call[NoQuery, RestoreBody]) -> Reply[Restored]:
    said = await restoration(request_reply_client(call), RestoreRequested(digests=call.body.digests))
    return Reply(said, status=200 if said.ended else 202)


async def _rules(call: Call[NoQuery, NoBody]) -> Reply[RetentionRules]:
    return Reply((await retention_key(call.context.streams.prefix).load(call.context.bus)).value or RetentionRules())


async def _set_rules(call: Call[NoQuery, RetentionRules]) -> Reply[RetentionRules]:
    return await replaced(call, retention_key(call.context.streams.prefix), RetentionRules())


async def _retain(call: Call[NoQuery, RetentionBody]) -> Reply[RetentionView]:
    said = await retention(request_reply_client(call), RetentionRequested(dry_run=call.body.dry_run))
    return Reply(said, status=200 if said.ended else 202)


async def _auto_push(call: Call[NoQuery, NoBody]) -> Reply[AutoPush]:
    return Reply((await auto_push_key(call.context.streams.prefix).load(call.context.bus)).value or AutoPush())


async def _set_auto_push(call: Call[NoQuery, AutoPush]) -> Reply[AutoPush]:
    return await replaced(call, auto_push_key(call.context.streams.prefix), AutoPush())


def _get(path: str, summary: str, handler: Any, answer: Any, *errors: str) -> Route[Any, Any, Any]:
    return Route(
        method="GET",
        path=path,
        summary=summary,
        handler=handler,
        query=NoQuery,
        body=NoBody,
        answer=answer,
        errors=errors,
    )


def _admin_post(path: str, summary: str, handler: Any, body: Any, answer: Any, *errors: str) -> Route[Any, Any, Any]:
    return Route(
        method="POST",
        path=path,
        summary=summary,
        handler=handler,
        access="admin",
        query=NoQuery,
        body=body,
        answer=answer,
        other_statuses=(202,) if answer in (Collection, Restored, RetentionView) else (),
        errors=errors,
        body_limit_bytes=128 * 1024,
    )


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="DELETE",
        path="/api/v1/images/{reference:.+}",
        summary="delete a tag, or all tags of a digest, from the registry",
        handler=_delete,
        access="operator",
        query=DeleteQuery,
        body=NoBody,
        answer=Deletion,
        other_statuses=(202,),
        errors=("bad_reference", "not_found", "in_use", "rebuilt"),
    ),
    _get("/api/v1/registry/figures", "what the store takes, by repository", _figures, StoreFigures, "not_found"),
    _get(
        "/api/v1/registry/figures/details",
        "what single images take, and what shared layers save",
        _details,
        StoreDetails,
        "not_found",
    ),
    _get("/api/v1/registry/figures/growth", "how the store grew", _growth, StoreGrowth),
    _get("/api/v1/registry/quarantine", "what a collection set aside", _quarantine, Quarantine, "not_found"),
    _get("/api/v1/registry/retention", "the retention rules", _rules, RetentionRules),
    _get("/api/v1/settings/auto-push", "which images go into the registry by themselves", _auto_push, AutoPush),
    _admin_post(
        "/api/v1/registry/collect",
        "collect what nothing references: `dry_run`, `scrub`, `now`; 202 where it goes on",
        _collect,
        CollectBody,
        Collection,
        "registry_has_cache",
        "no_storage_folder",
        "bad_setting",
    ),
    _admin_post(
        "/api/v1/registry/quarantine/restore",
        "bring content back from quarantine: `digests`",
        _restore,
        RestoreBody,
        Restored,
        "no_storage_folder",
    ),
    _admin_post(
        "/api/v1/registry/retention",
        "replace the retention rules: `rules`",
        _set_rules,
        RetentionRules,
        RetentionRules,
        CHANGED,
    ),
    _admin_post(
        "/api/v1/registry/retention/run",
        "delete what the retention rules do not keep; `dry_run`: only say it",
        _retain,
        RetentionBody,
        RetentionView,
    ),
    _admin_post(
        "/api/v1/settings/auto-push",
        "replace the setting: `push`, `rules`",
        _set_auto_push,
        AutoPush,
        AutoPush,
        CHANGED,
    ),
)
