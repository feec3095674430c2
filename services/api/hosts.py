"""`/api/v1/hosts`: the hosts of the installation."""

from __future__ import annotations

from typing import Any

import msgspec

from services.api.route import Call, NoBody, NoQuery, Reply, Route
from services.commands.forget_host import forget_host
from services.queries.known_hosts import HostRow, known_hosts
from services.queries.page import Page


class ForgetHostQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`force`: also while the host is there."""

    force: bool = False


async def _hosts(call: Call[NoQuery, NoBody]) -> Reply[Page[HostRow]]:
    context = call.context
    return Reply(Page(items=await known_hosts(context.bus, context.streams)))


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
