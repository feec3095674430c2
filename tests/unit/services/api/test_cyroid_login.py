"""Whose bearer a request has is asked at CYROID; here a server of the test's own in its place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.api.authentication import Actor
from services.api.cyroid_login import CACHE_LIMIT, CACHE_SECONDS, CyroidLogin
from services.errors import RequestRefused, Unavailable


@dataclass
class Cyroid:
    """What it answers, and how often it was asked."""

    login: CyroidLogin
    now: list[float]
    answer: Any = None
    status: int = 200
    asked: list[str] = field(default_factory=list)


@pytest.fixture
async def cyroid() -> AsyncIterator[Cyroid]:
    """A server with `/api/v1/auth/me`."""
    now = [0.0]

    async def me(request: web.Request) -> web.Response:
        made.asked.append(request.headers["Authorization"])
        if isinstance(made.answer, str):
            return web.Response(status=made.status, text=made.answer)
        return web.json_response(made.answer, status=made.status)

    app = web.Application()
    app.router.add_get("/api/v1/auth/me", me)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        login = CyroidLogin(
            session=session,
            url=str(server.make_url("/")),
            roles={"admin": "admin", "engineer": "operator", "*": "viewer"},
            clock=lambda: now[0],
        )
        made = Cyroid(login, now)
        yield made


@pytest.mark.parametrize(
    ("answer", "actor"),
    [
        ({"username": "eva", "role": "engineer"}, Actor("eva", "operator")),
        ({"username": "eva", "roles": ["student", "admin"]}, Actor("eva", "admin")),
        ({"email": "e@x", "roles": [{"name": "engineer"}]}, Actor("e@x", "operator")),
        ({"username": "tim", "role": "student", "unknown": [1]}, Actor("tim", "viewer")),
    ],
)
async def test_roles_are_mapped(cyroid: Cyroid, answer: Any, actor: Actor) -> None:
    """The best of those that a user has; `*` for every other one."""
    cyroid.answer = answer
    assert await cyroid.login.actor("t") == actor
    assert cyroid.asked == ["Bearer t"]


async def test_an_answer_is_kept_for_a_moment(cyroid: Cyroid) -> None:
    """At most 30 seconds, so that a user who lost a role loses it here."""
    cyroid.answer = {"username": "eva", "role": "admin"}
    await cyroid.login.actor("t")
    cyroid.now[0] = CACHE_SECONDS - 1
    cyroid.answer = {"username": "eva", "role": "student"}
    assert (await cyroid.login.actor("t")).role == "admin"
    cyroid.now[0] = CACHE_SECONDS
    assert (await cyroid.login.actor("t")).role == "viewer"
    assert len(cyroid.asked) == 2
    assert CACHE_SECONDS <= 30


async def test_tokens_that_come_once_do_not_fill_the_memory(cyroid: Cyroid) -> None:
    """The oldest answers go."""
    cyroid.answer = {"username": "eva", "role": "admin"}
    for number in range(CACHE_LIMIT + 1):
        cyroid.login._known[str(number)] = (0.0, Actor("eva", "admin"))
    await cyroid.login.actor("t")
    assert len(cyroid.login._known) == CACHE_LIMIT


async def test_a_token_that_cyroid_does_not_know_is_refused(cyroid: Cyroid) -> None:
    """And is not remembered as refused: it may become valid."""
    cyroid.status, cyroid.answer = 401, {"detail": "no"}
    with pytest.raises(RequestRefused, match="does not know") as told:
        await cyroid.login.actor("t")
    assert told.value.code == "bad_token"
    cyroid.status, cyroid.answer = 200, {"username": "eva", "role": "admin"}
    assert (await cyroid.login.actor("t")).name == "eva"


async def test_a_user_without_a_role_here_is_refused(cyroid: Cyroid) -> None:
    """Where the map has no `*`."""
    cyroid.answer = {"username": "tim", "role": "student"}
    strict = CyroidLogin(session=cyroid.login._session, url=cyroid.login._url[:-15], roles={"admin": "admin"})
    with pytest.raises(RequestRefused) as told:
        await strict.actor("t")
    assert told.value.code == "forbidden"


@pytest.mark.parametrize(
    ("status", "answer"), [(500, {}), (200, "<html>"), (200, [1]), (302, {}), (200, "x" * 100_000)]
)
async def test_an_answer_that_cannot_be_read_is_no_login(cyroid: Cyroid, status: int, answer: Any) -> None:
    """503: neither a refusal nor a way in."""
    cyroid.status, cyroid.answer = status, answer
    with pytest.raises(Unavailable, match="CYROID"):
        await cyroid.login.actor("t")


async def test_cyroid_away_is_503() -> None:
    """With the setting that says where it is."""
    async with aiohttp.ClientSession() as session:
        login = CyroidLogin(session=session, url="http://127.0.0.1:9", roles={"*": "viewer"})
        with pytest.raises(Unavailable, match="CYROID_API_CYROID_URL"):
            await login.actor("t")


async def test_no_token_is_not_asked_about(cyroid: Cyroid) -> None:
    """Refused here."""
    with pytest.raises(RequestRefused) as told:
        await cyroid.login.actor(None)
    assert (told.value.code, cyroid.asked) == ("no_token", [])
