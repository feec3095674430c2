"""Lists of ranges, one of them in detail, and what is unreferenced there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from services.api.lists.images import NoParameters
from services.api.lists.read import Read, ReadContext, Text
from services.errors import NotFound
from services.queries.page import Page
from services.queries.read_model.listing import Filter, ListPage, ListQuery
from services.queries.read_model.ranges import RangeDetails
from services.queries.read_model.rows import RangeRow
from services.queries.unreferenced import RangeUnreferenced

Agent = Annotated[Literal["alive", "away", "unreadable", ""], Meta(description="alive, away or unreadable")]


class RangesQuery(ListQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ranges, by whether their agent is alive; `host`: those that run there."""

    sort: Annotated[
        Literal["name", "heard", "images", "missing"], Meta(description="name, heard, images or missing")
    ] = "name"
    agent: Agent = ""
    host: Text = ""


async def ranges(context: ReadContext, path: Mapping[str, str], query: RangesQuery) -> ListPage[RangeRow]:
    known, open_of = context.mirror.ranges, context.mirror.deployments.open_of
    page = known.listing.page(
        query,
        sort=query.sort,
        state=query.agent,
        keep=Filter((query.host,), lambda row: row.host == query.host) if query.host else None,
        as_of=context.as_of,
        stale=context.mirror.stale,
    )
    items = [known.with_beat(row, len(open_of(row.range_id)) if row.open_deployments else 0) for row in page.items]
    return msgspec.structs.replace(page, items=items)


async def one_range(context: ReadContext, path: Mapping[str, str], query: NoParameters) -> RangeDetails:
    range_id = path["range_id"]
    found = context.mirror.ranges.details(range_id, context.mirror.deployments.open_of(range_id))
    if found is None:
        raise NotFound(f"there is no range {range_id}: its agent never reported", hint="cyroid-images ranges ls")
    return found


async def unreferenced(context: ReadContext, path: Mapping[str, str], query: NoParameters) -> RangeUnreferenced:
    range_id = path["range_id"]
    under_way = context.mirror.deployments.under_way()
    found = context.mirror.ranges.unreferenced(range_id, under_way.get(range_id, {}))
    if found is None:
        raise NotFound(f"range {range_id} never reported its images", hint="cyroid-images ranges ls")
    return found


async def all_unreferenced(
    context: ReadContext, path: Mapping[str, str], query: NoParameters
) -> Page[RangeUnreferenced]:
    under_way, known = context.mirror.deployments.under_way(), context.mirror.ranges
    rows = [row.range_id for _, row in known.table.walk("name") if row.unreferenced]
    found = (known.unreferenced(range_id, under_way.get(range_id, {})) for range_id in rows)
    return Page(items=[one for one in found if one is not None and one.images])


READS: tuple[Read[Any, Any], ...] = (
    Read(
        path="/api/v1/ranges",
        summary="every range that ever reported: its agent, engine, and how many images it has, lacks, or has too many",
        function=ranges,
        query=RangesQuery,
        answer=ListPage[RangeRow],
    ),
    Read(
        path="/api/v1/ranges/{range_id}",
        summary="one range: its images, its desired state, its open deployments",
        function=one_range,
        query=NoParameters,
        answer=RangeDetails,
        errors=("not_found",),
    ),
    Read(
        path="/api/v1/ranges/{range_id}/unwanted",
        summary="its unreferenced images: there, and in no deployment",
        function=unreferenced,
        query=NoParameters,
        answer=RangeUnreferenced,
        errors=("not_found",),
    ),
    Read(
        path="/api/v1/unwanted",
        summary="the ranges that have unreferenced images",
        function=all_unreferenced,
        query=NoParameters,
        answer=Page[RangeUnreferenced],
    ),
)
