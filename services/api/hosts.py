"""`/api/v1/hosts`: the hosts of the installation."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from services.api.route import Call, NoBody, NoQuery, Reply, Route
from services.commands.forget_host import forget_host
from services.queries.host_holdings import Holdings, holdings
from services.queries.known_hosts import HostRow, known_hosts
from services.queries.page import Page


class ForgetHostQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`force`: also while the host is there."""

    force: bool = False


class HoldingsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of a host's images; `q` is searched for in their names."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="a number from 1 to 1000")] = 50
    cursor: Annotated[str, Meta(max_length=4096, description="the `next` of an earlier answer")] = ""
    q: Annotated[str, Meta(max_length=256, description="text of at most 256 characters")] = ""


async def _hosts(call: Call[NoQuery, NoBody]) -> Reply[Page[HostRow]]:
    context = call.context
    ranges = Counter(row.host for row in context.reads.mirror.ranges.table.rows.values())
    return Reply(Page(items=await known_hosts(context.bus, context.streams, ranges=ranges)))


async def _holdings(call: Call[HoldingsQuery, NoBody]) -> Reply[Holdings]:
    context, query = call.context, call.query
    found = await holdings(
        context.bus,
        context.streams,
        call.path["host"],
        text=query.q,
        after=query.cursor,
        limit=query.limit,
    )
    return Reply(found)


async def _forget(call: Call[ForgetHostQuery, NoBody]) -> Reply[None]:
    context = call.context
    await forget_host(context.bus, context.streams, call.path["host"], force=call.query.force)
    return Reply(None)


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="GET",
        path="/api/v1/hosts",
        summary="the hosts: whether each is there, its engine, free disk, and how many images and ranges it has",
        handler=_hosts,
        query=NoQuery,
        body=NoBody,
        answer=Page[HostRow],
    ),
    Route(
        method="GET",
        path="/api/v1/hosts/{host}/images",
        summary="the images that a host holds, and whether the registry has them",
        handler=_holdings,
        query=HoldingsQuery,
        body=NoBody,
        answer=Holdings,
        errors=("not_found",),
    ),
    Route(
        method="DELETE",
        path="/api/v1/hosts/{host}",
        summary="forget a host that no longer exists; `?force=true` while it is there",
        handler=_forget,
        access="operator",
        query=ForgetHostQuery,
        body=NoBody,
        answer=None,
        status=204,
        errors=("not_found", "host_alive"),
    ),
)
