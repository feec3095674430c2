"""`/api/v1/session`: the page's login. A token is exchanged for a session cookie, which scripts cannot read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from services.api.route import Call, NoBody, NoQuery, Reply, Route
from services.errors import RequestRefused

_PATH = "/api/v1/session"


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """Who the caller is. `role` None: nobody yet, a token is needed; `auth` says which kind of token."""

    auth: Literal["none", "token", "cyroid"]
    name: str = ""
    role: Literal["viewer", "operator", "admin"] | None = None


class LoginBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bearer token that the session stands for."""

    token: Annotated[str, Meta(min_length=1, max_length=8192)]


async def _who(call: Call[NoQuery, NoBody]) -> Reply[SessionView]:
    access = call.access
    try:
        actor = await access.login.actor(await call.token(), call.client)
    except RequestRefused as refused:
        if refused.code not in {"no_token", "bad_token"}:
            raise
        return Reply(SessionView(auth=access.auth))
    return Reply(SessionView(auth=access.auth, name=actor.name, role=actor.role))


async def _open(call: Call[NoQuery, LoginBody]) -> Reply[SessionView]:
    access = call.access
    actor = await access.login.actor(call.body.token, call.client)
    cookie = await access.sessions.cookie(call.body.token, secure=call.is_secure)
    return Reply(SessionView(auth=access.auth, name=actor.name, role=actor.role), headers={"Set-Cookie": cookie})


async def _end(call: Call[NoQuery, NoBody]) -> Reply[None]:
    await call.end_session()
    return Reply(None, headers={"Set-Cookie": call.access.sessions.expired_cookie()})


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="GET",
        path=_PATH,
        summary="who the caller is; `role` is null without a valid token or session",
        handler=_who,
        access="open",
        query=NoQuery,
        body=NoBody,
        answer=SessionView,
        errors=("too_many_logins", "forbidden", "redis_unavailable"),
    ),
    Route(
        method="POST",
        path=_PATH,
        summary="log in: `token`; answers with a session cookie",
        handler=_open,
        access="open",
        query=NoQuery,
        body=LoginBody,
        answer=SessionView,
        errors=("bad_token", "too_many_logins", "forbidden", "redis_unavailable"),
    ),
    Route(
        method="DELETE",
        path=_PATH,
        summary="log out: ends the session, also for copies of its cookie",
        handler=_end,
        access="open",
        query=NoQuery,
        body=NoBody,
        answer=None,
        status=204,
        errors=("redis_unavailable",),
    ),
)
