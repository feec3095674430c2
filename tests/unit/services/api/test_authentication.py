"""Who asks, and what the role allows."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from services.api.authentication import Actor, TokenFile, check_listen, parse_tokens, token_hash
from services.api.login import LoginSettings, open_authenticator
from services.api.server import application
from services.errors import BadInput, RequestRefused
from tests.unit.services.api.site import api_context
from tests.unit.services.twins import STREAMS, Cluster


def _line(name: str, role: str, token: str) -> str:
    return f"{name} {role} {token_hash(token)}\n"


@asynccontextmanager
async def _api(tokens: Path) -> AsyncIterator[tuple[TestClient[Any, Any], Cluster]]:
    world = Cluster()
    context = api_context(world)
    settings = LoginSettings(auth="token", tokens=str(tokens))
    async with (
        open_authenticator(settings) as authenticator,
        TestClient(TestServer(application(context, authenticator=authenticator))) as client,
    ):
        yield client, world


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_the_role_of_a_token_decides(tmp_path: Path) -> None:
    """No token 401, a wrong one 401, a viewer may look, an operator may ask; health is open to everybody."""
    tokens = tmp_path / "tokens"
    tokens.write_text("# staff\n\n" + _line("wall", "viewer", "v") + _line("eva", "operator", "o"))
    body = {"range_id": "r1", "images": ["web:1"]}
    async with _api(tokens) as (client, world):

        async def status(method: str, path: str, token: str | None, **more: Any) -> tuple[int, str]:
            headers = _bearer(token) if token else {}
            async with client.request(method, path, headers=headers, **more) as answer:
                said = await answer.json()
                return answer.status, said.get("code", "")

        assert await status("GET", "/livez", None) == (200, "")
        assert await status("GET", "/api/v1/ranges", None) == (401, "no_token")
        assert await status("GET", "/api/v1/ranges", "other") == (401, "bad_token")
        assert await status("GET", "/api/v1/ranges", "v") == (200, "")
        assert await status("POST", "/api/v1/deployments", "v", json=body) == (403, "forbidden")
        assert await status("POST", "/api/v1/deployments", "o", json=body) == (202, "")
        entries = [entry async for entry in world.bus.tail((STREAMS.deployments,), after="0", follow=False)]
    assert [entry.envelope.actor for entry in entries if entry.envelope] == ["eva"]


async def test_a_challenge_names_the_scheme(tmp_path: Path) -> None:
    """A client that was not told of tokens learns it (RFC 9110, 11.6.1)."""
    tokens = tmp_path / "tokens"
    tokens.write_text(_line("eva", "operator", "o"))
    async with _api(tokens) as (client, _), client.get("/api/v1/ranges") as answer:
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_token_that_is_taken_out_of_the_file_ends(tmp_path: Path) -> None:
    """Without a restart."""
    path = tmp_path / "tokens"
    path.write_text(_line("eva", "operator", "o") + _line("wall", "viewer", "v"))
    tokens = TokenFile(path)
    assert await tokens.actor("o") == Actor("eva", "operator")
    path.write_text(_line("wall", "viewer", "v"))
    os.utime(path, ns=(1, 1))
    with pytest.raises(RequestRefused, match="not known"):
        await tokens.actor("o")
    assert await tokens.actor("v") == Actor("wall", "viewer")


@pytest.mark.parametrize("line", ["eva operator", "eva root " + "0" * 64, "eva operator " + "0" * 63, "a b c d"])
def test_a_line_that_is_wrong_is_named(line: str) -> None:
    """A token that silently did not count would be looked for elsewhere."""
    with pytest.raises(BadInput, match="line 2"):
        parse_tokens(f"# first\n{line}\n")


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """With the setting that names it."""
    with pytest.raises(BadInput, match="CYROID_API_TOKENS"):
        TokenFile(tmp_path / "none")


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.9.9.9:1"])
def test_nobody_is_asked_on_a_loopback_address(listen: str) -> None:
    """Whoever is on this machine may do as much without the API."""
    check_listen("none", listen)


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "10.0.0.5:1", "cyroid:1"])
def test_an_open_api_on_a_network_stops_the_start(listen: str) -> None:
    """Unless somebody is asked who they are."""
    with pytest.raises(BadInput, match="CYROID_API_AUTH") as told:
        check_listen("none", listen)
    assert told.value.code == "bad_setting"
    check_listen("token", listen)
    check_listen("cyroid", listen)
