"""Being let in: basic, bearer by challenge, a ready token; against a small server of the test's own."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from services.adapters.registry import HttpRegistry
from services.adapters.registry_auth import Credentials
from services.errors import RegistryUnavailable

BASIC = "Basic " + base64.b64encode(b"me:secret").decode()


class Guarded:
    """Answers `/v2/…` only to who is let in; `asked` are the scopes that tokens were fetched for."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.asked: list[list[str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "")
        if request.path == "/token":
            if given != BASIC:
                return web.Response(status=401)
            self.asked.append(request.query.getall("scope", []))
            return web.json_response({"token": "T", "expires_in": 300})
        if given == (BASIC if self.kind == "basic" else "Bearer T"):
            return web.Response(status=200, headers={"Content-Length": "5"} if request.method == "HEAD" else {})
        challenge = "Basic realm=x" if self.kind == "basic" else f'Bearer realm="{self.url}/token",service="reg"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})


@asynccontextmanager
async def guarded(kind: str) -> AsyncIterator[Guarded]:
    server = Guarded(kind)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = "http://{}:{}".format(*runner.addresses[0][:2])
        yield server
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("kind", ["basic", "bearer"])
async def test_name_and_password_are_given_when_asked_for(kind: str) -> None:
    """To the registry itself, or to the token service that it names."""
    async with (
        guarded(kind) as server,
        HttpRegistry.open(server.url, credentials=Credentials(username="me", password="secret")) as registry,
    ):
        await registry.ping()
        assert await registry.blob_size("a/b", "sha256:1") == 5


async def test_a_token_is_fetched_once_per_scope_and_kept() -> None:
    """The second request of the same kind does not ask again."""
    async with (
        guarded("bearer") as server,
        HttpRegistry.open(server.url, credentials=Credentials(username="me", password="secret")) as registry,
    ):
        for _ in range(3):
            await registry.blob_size("a/b", "sha256:1")
        await registry.blob_size("c/d", "sha256:1")
        assert server.asked == [["repository:a/b:pull"], ["repository:c/d:pull"]]


async def test_a_ready_token_is_sent_as_it_is() -> None:
    """No token service is asked."""
    async with (
        guarded("bearer") as server,
        HttpRegistry.open(server.url, credentials=Credentials(token="T")) as registry,
    ):
        await registry.ping()
        assert server.asked == []


@pytest.mark.parametrize("kind", ["basic", "bearer"])
@pytest.mark.parametrize(
    "credentials", [Credentials(), Credentials(username="me", password="wrong"), Credentials(token="wrong")]
)
async def test_who_is_not_let_in_hears_what_to_check(kind: str, credentials: Credentials) -> None:
    """No loop, no hang: one error that names the settings to look at, and no secret."""
    async with guarded(kind) as server, HttpRegistry.open(server.url, credentials=credentials) as registry:
        with pytest.raises(RegistryUnavailable, match="user name") as caught:
            await registry.ping()
        assert "wrong" not in str(caught.value)
        assert caught.value.code == "registry_denied"


def test_secrets_are_not_shown() -> None:
    """A log line with the credentials shows neither password nor token."""
    assert "secret" not in repr(Credentials(username="me", password="secret", token="secret"))
