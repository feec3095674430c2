"""Lists of pushes, transfers under way, and open prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from services.api.lists.images import NoParameters
from services.api.lists.read import Read, ReadContext, Text
from services.core.images.references import Reference
from services.errors import NotFound
from services.queries.read_model.listing import Filter, ListPage, ListQuery
from services.queries.read_model.pushes import PushDetails
from services.queries.read_model.rows import PromptRow, PushRow, TransferRow

PushStateParameter = Annotated[
    Literal["requested", "pushing", "pushed", "failed", "skipped", ""],
    Meta(description="requested, pushing, pushed, failed or skipped"),
]
KindParameter = Annotated[Literal["push", "pull", "load", "export", ""], Meta(description="push, pull, load or export")]


class PushesQuery(ListQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pushes of one state, or of one image."""

    sort: Annotated[Literal["asked", "name", "state"], Meta(description="asked, name or state")] = "asked"
    state: PushStateParameter = ""
    reference: Text = ""


class TransfersQuery(ListQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Transfers of one kind, or of one range."""

    sort: Annotated[Literal["started", "name"], Meta(description="started or name")] = "started"
    kind: KindParameter = ""
    range_id: Text = ""


class PromptsQuery(ListQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Open prompts."""

    sort: Annotated[Literal["asked", "name"], Meta(description="asked or name")] = "asked"


async def pushes(context: ReadContext, path: Mapping[str, str], query: PushesQuery) -> ListPage[PushRow]:
    known = context.mirror.pushes
    name = str(Reference.parse(query.reference)) if query.reference else ""
    page = known.listing.page(
        query,
        sort=query.sort,
        state=query.state,
        keep=Filter((name,), lambda row: row.reference == name) if name else None,
        as_of=context.as_of,
        stale=context.mirror.stale,
    )
    return msgspec.structs.replace(page, items=[known.with_progress(row) for row in page.items])


async def push(context: ReadContext, path: Mapping[str, str], query: NoParameters) -> PushDetails:
    """A push that was asked for a moment ago may not be in the read model yet: then its record is looked at."""
    found = context.mirror.pushes.details(path["push_id"])
    if found is None:
        await context.mirror.pushes.look_for(path["push_id"])
        found = context.mirror.pushes.details(path["push_id"])
    if found is None:
        raise NotFound(f"there is no push {path['push_id']!r}, or nobody has heard of it yet")
    return found


async def transfers(context: ReadContext, path: Mapping[str, str], query: TransfersQuery) -> ListPage[TransferRow]:
    def keep(row: TransferRow) -> bool:
        return (not query.kind or row.kind == query.kind) and (not query.range_id or row.range_id == query.range_id)

    page = context.mirror.transfers.listing.page(
        query,
        sort=query.sort,
        keep=Filter((query.kind, query.range_id), keep),
        as_of=context.as_of,
        stale=context.mirror.stale,
    )
    return msgspec.structs.replace(page, items=[msgspec.structs.replace(row, layers=()) for row in page.items])


async def transfer(context: ReadContext, path: Mapping[str, str], query: NoParameters) -> TransferRow:
    found = context.mirror.transfers.of(path["transfer_id"])
    if found is None:
        raise NotFound(f"no transfer {path['transfer_id']!r} is under way")
    return found


async def prompts(context: ReadContext, path: Mapping[str, str], query: PromptsQuery) -> ListPage[PromptRow]:
    return context.mirror.prompts.listing.page(query, sort=query.sort, as_of=context.as_of, stale=context.mirror.stale)


READS: tuple[Read[Any, Any], ...] = (
    Read(
        path="/api/v1/pushes",
        summary="pushes, the latest first: who asked, why, state, progress, result or error",
        function=pushes,
        query=PushesQuery,
        answer=ListPage[PushRow],
        errors=("bad_reference",),
    ),
    Read(
        path="/api/v1/pushes/{push_id}",
        summary="one push, with its progress layer by layer while it is under way",
        function=push,
        query=NoParameters,
        answer=PushDetails,
        errors=("not_found",),
    ),
    Read(
        path="/api/v1/transfers",
        summary="transfers under way: phase, bytes, rate and time left",
        function=transfers,
        query=TransfersQuery,
        answer=ListPage[TransferRow],
    ),
    Read(
        path="/api/v1/transfers/{transfer_id}",
        summary="one transfer, layer by layer",
        function=transfer,
        query=NoParameters,
        answer=TransferRow,
        errors=("not_found",),
    ),
    Read(
        path="/api/v1/prompts",
        summary="open prompts: images that wait for an operator's decision whether they are pushed",
        function=prompts,
        query=PromptsQuery,
        answer=ListPage[PromptRow],
    ),
)
