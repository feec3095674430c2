"""The page's login: a token for a cookie, and what the cookie is worth."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from events.bus import BusUnreachable
from services.api.authentication import TokenFile, token_hash
from services.api.page_sessions import COOKIE, LOOK_SECONDS, PageSessions
from services.api.server import application
from tests.unit.services.api.site import Service, api_context
from tests.unit.services.twins import STREAMS, Cluster

TOKEN = "a-token-of-eva"


class Unreachable:
    """A bus without Redis."""

    async def load(self, key: str) -> None:
        raise BusUnreachable("Redis is away")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """The tokens of the API."""
    path = tmp_path / "tokens"
    path.write_text(f"eva operator {token_hash(TOKEN)}\n")
    return path


@pytest.fixture
async def guarded(token_file: Path) -> AsyncIterator[Service]:
    """An API that asks for tokens, and a client that keeps cookies."""
    world = Cluster()
    context = api_context(world)
    app = application(context, authenticator=TokenFile(token_file), auth="token")
    async with TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)) as client:
        yield Service(client, world, context)


async def test_without_a_session_the_page_is_told_what_to_ask_for(guarded: Service) -> None:
    """And everything else is refused."""
    assert await guarded.get("/api/v1/session") == {"auth": "token", "name": "", "role": None}
    assert (await guarded.get("/api/v1/ranges", 401))["code"] == "no_token"


async def test_a_session_stands_for_its_token(guarded: Service) -> None:
    """The cookie is the browser's alone: no script reads it, no other site sends it, and it holds no readable token."""
    async with guarded.client.post("/api/v1/session", json={"token": TOKEN}) as answer:
        assert await answer.json() == {"auth": "token", "name": "eva", "role": "operator"}
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path" not in cookie
    assert TOKEN not in cookie
    assert (await guarded.get("/api/v1/session"))["name"] == "eva"
    assert (await guarded.get("/api/v1/ranges"))["items"] == []


async def test_over_tls_the_cookie_is_never_sent_without(guarded: Service) -> None:
    """A proxy that ends TLS says so."""
    headers = {"X-Forwarded-Proto": "https"}
    async with guarded.client.post("/api/v1/session", json={"token": TOKEN}, headers=headers) as answer:
        assert "Secure" in answer.headers["Set-Cookie"]


async def test_logging_out_ends_the_session(guarded: Service) -> None:
    """The browser forgets the cookie, and a copy of it is worth nothing any more, nor in another process."""
    async with guarded.client.post("/api/v1/session", json={"token": TOKEN}) as answer:
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
    async with guarded.client.delete("/api/v1/session") as answer:
        assert answer.status == 204
    assert (await guarded.get("/api/v1/session"))["role"] is None
    stolen = make_mocked_request("GET", "/", headers={"Cookie": cookie})
    async with guarded.client.get("/api/v1/ranges", headers={"Cookie": cookie}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (401, "no_token")
    assert await PageSessions(guarded.world.bus, STREAMS.prefix).token(stolen) is None


async def test_other_processes_hear_of_a_logout_within_seconds() -> None:
    """Until then a session that they know goes on; without Redis too, while a new one waits for it."""
    world, at = Cluster(), [0.0]
    one, other = PageSessions(world.bus, "test"), PageSessions(world.bus, "test", monotonic=lambda: at[0])
    cookies = [(await one.cookie("secret", secure=False)).partition(";")[0] for _ in range(2)]
    known, unknown = (make_mocked_request("GET", "/", headers={"Cookie": cookie}) for cookie in cookies)
    assert await other.token(known) == "secret"
    await one.end(known)
    assert await other.token(known) == "secret"
    at[0] += LOOK_SECONDS
    assert await other.token(known) is None
    await one.token(unknown)
    one._bus = Unreachable()  # type: ignore[assignment]
    other._bus = Unreachable()  # type: ignore[assignment]
    assert await one.token(unknown) == "secret"
    with pytest.raises(BusUnreachable):
        await other.token(unknown)


async def test_a_token_that_is_taken_back_ends_its_sessions(guarded: Service, token_file: Path) -> None:
    """At once, though the cookie itself is still whole."""
    await guarded.post("/api/v1/session", {"token": TOKEN}, 200)
    token_file.write_text("")
    assert (await guarded.get("/api/v1/session"))["role"] is None
    assert (await guarded.get("/api/v1/ranges", 401))["code"] == "bad_token"


async def test_a_wrong_token_opens_no_session(guarded: Service) -> None:
    """And gets no cookie."""
    async with guarded.client.post("/api/v1/session", json={"token": "guessed"}) as answer:
        assert answer.status == 401
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("value", ["", "x", "gAAAAABm", "\u00e9", "a" * 4000])
async def test_a_cookie_that_was_made_up_is_no_session(guarded: Service, value: str) -> None:
    """Whatever it holds."""
    async with guarded.client.get("/api/v1/ranges", headers={"Cookie": f"{COOKIE}={value}"}) as answer:
        assert answer.status == 401


async def test_all_processes_of_an_api_open_one_anothers_sessions() -> None:
    """The key is one for all, also when two make it at the same moment; it outlives a restart."""
    world = Cluster()
    one, other = PageSessions(world.bus, "test"), PageSessions(world.bus, "test")
    cookie = (await one.cookie("secret", secure=False)).partition("=")[2].partition(";")[0]
    request = make_mocked_request("GET", "/", headers={"Cookie": f"{COOKIE}={cookie}"})
    assert await other.token(request) == "secret"
