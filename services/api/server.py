"""The application: the table of routes registered, and every error answered as a problem document."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Literal

from aiohttp import web

from services.api.authentication import Authenticator, CallerAccess, authorize
from services.api.failed_logins import FailedLogins
from services.api.guards import guards
from services.api.page_files import add_page
from services.api.page_sessions import PageSessions
from services.api.parameters import QueryParser, read_body, read_path
from services.api.responses import respond
from services.api.route import ApiContext, Call, Route, Streamed
from services.api.routes import ROUTES
from services.api.uploads import pass_over_rest, upload_of
from services.errors import RequestRefused
from services.runtime.problem_middleware import problems

BODY_SECONDS = 30.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(
    context: ApiContext,
    *,
    authenticator: Authenticator,
    auth: Literal["none", "token", "cyroid"] = "none",
    host_names: Collection[str] = (),
    frame_ancestors: str = "",
    routes: Sequence[Route[Any, Any, Any]] = ROUTES,
) -> web.Application:
    """The application, ready to be served."""
    app = web.Application(
        middlewares=[problems, guards(host_names, {route.path: route.upload for route in routes if route.upload})]
    )
    access = CallerAccess(
        auth=auth,
        login=FailedLogins(authenticator),
        sessions=PageSessions(context.bus, context.streams.prefix),
    )
    add_page(app, frame_ancestors=frame_ancestors)
    app.on_shutdown.append(_end_of(context))
    for route in routes:
        endpoint = _endpoint(route, context, access)
        app.router.add_route(route.method, route.path, endpoint)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, endpoint)
    return app


def _end_of(context: ApiContext) -> Callable[[web.Application], Awaitable[None]]:
    async def end(app: web.Application) -> None:
        """End those who listen to events: they would hold up the end of the server."""
        context.feed.broadcast.close()

    return end


def _endpoint(route: Route[Any, Any, Any], context: ApiContext, access: CallerAccess) -> Handler:
    queries = QueryParser()

    async def handle(request: web.Request) -> web.StreamResponse:
        client, actor = request.remote or "", ""
        if route.access != "open":
            token = await access.sessions.token(request)
            actor = (await authorize(token, client, route.access, access.login)).name
        content = b"" if route.upload else await _content(request, route.body_limit_bytes)
        call = Call(
            context=context,
            access=access,
            path=read_path(request.match_info),
            query=queries.read(request.rel_url.raw_query_string, lambda: request.query, route.query),
            body=read_body(content, route.body),
            idempotency_key=request.headers.get("Idempotency-Key"),
            actor=actor,
            client=client,
            token=lambda: access.sessions.token(request),
            end_session=lambda: access.sessions.end(request),
            upload=upload_of(request, route.body_limit_bytes) if route.upload else None,
            if_match=request.headers.get("If-Match", ""),
            prefer=", ".join(request.headers.getall("Prefer", [])),
            is_secure=request.secure or request.headers.get("X-Forwarded-Proto") == "https",
        )
        try:
            reply = await route.handler(call)
        finally:
            if route.upload:
                await pass_over_rest(request)
        if route.streamed:
            streamed: Streamed = reply.body
            return await streamed.respond(request)
        return await respond(request, route, reply)

    return handle


async def _content(request: web.Request, limit_bytes: int) -> bytes:
    """The body, at most as long as the route allows. Raises RequestRefused."""
    if not request.body_exists:
        return b""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.content.iter_any():
                size += len(part)
                if size > limit_bytes:
                    raise RequestRefused(f"the body has more than {limit_bytes} bytes", code="too_large")
                parts.append(part)
    except TimeoutError:
        raise RequestRefused(f"the body did not come within {BODY_SECONDS:g} seconds", code="timeout") from None
    except web.RequestPayloadError as error:
        raise RequestRefused("the body is not encoded as its headers say") from error
    return b"".join(parts)
