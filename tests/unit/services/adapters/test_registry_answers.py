"""Answers of what is no registry: one kind of error everywhere."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.adapters.registry import HttpRegistry
from services.adapters.registry_auth import Credentials
from services.core.images.manifests import sha256
from services.errors import RegistryUnavailable
from services.queries.images import registry_images
from services.queries.statistics import Statistics

HTML = ("<html>Welcome</html>", "text/html", 200)
ODD = ('{"repositories": 5, "tags": {}}', "application/json", 200)
NOTHING = ("404 page not found", "text/plain", 404)
BROKEN = ("\x80", "application/json", 200)
Answer = tuple[str, str, int]


async def opened(answers: dict[str, Answer]) -> tuple[TestServer, str]:
    """A server that answers 200 at `/v2/`, and as given at the paths that begin so."""

    async def handle(request: web.Request) -> web.Response:
        for path, (text, kind, status) in answers.items():
            if request.path.startswith(path):
                return web.Response(body=text.encode("latin-1"), content_type=kind, status=status)
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    server = TestServer(app)
    await server.start_server()
    return server, f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("answer", [HTML, ODD, NOTHING, BROKEN])
async def test_a_catalogue_that_is_none_is_unhealthy_with_the_reason(answer: Answer) -> None:
    """In the statistics, in the list of images, and for whoever asks the port."""
    server, url = await opened({"/v2/_catalog": answer})
    async with HttpRegistry.open(url) as registry:
        counted = await Statistics(registry=registry).get()
        assert not counted.healthy
        assert counted.error is not None
        assert counted.error.code == "registry_bad_answer"
        assert "/v2/_catalog" in counted.error.message
        with pytest.raises(RegistryUnavailable, match="CYROID_REGISTRY_URL"):
            await registry_images(registry)
        await registry.ping()
    await server.close()


@pytest.mark.parametrize("answer", [HTML, ODD, BROKEN])
async def test_tags_that_are_none_are_an_error(answer: Answer) -> None:
    """404 is none: registry:2 says so of a repository whose manifests are all deleted."""
    server, url = await opened({"/v2/a/tags": answer, "/v2/b/tags": NOTHING})
    async with HttpRegistry.open(url) as registry:
        with pytest.raises(RegistryUnavailable) as raised:
            await registry.tags("a")
        assert raised.value.code == "registry_bad_answer"
        assert await registry.tags("b") == []
    await server.close()


async def test_a_port_where_no_registry_is_does_not_answer_a_ping() -> None:
    """Some other web server."""
    server, url = await opened({"/v2/": NOTHING})
    async with HttpRegistry.open(url) as registry:
        with pytest.raises(RegistryUnavailable, match="no registry"):
            await registry.ping()
    await server.close()


async def test_lists_without_an_end_end() -> None:
    """A page whose `Link` leads back to itself."""

    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"repositories": ["a"]}, headers={"Link": f'<{request.path_qs}>; rel="next"'})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    server = TestServer(app)
    await server.start_server()
    async with HttpRegistry.open(f"http://127.0.0.1:{server.port}") as registry:
        with pytest.raises(RegistryUnavailable, match="without an end"):
            assert [one async for one in registry.repositories()]
    await server.close()


@pytest.mark.parametrize("header", ["Location", "Link", "WWW-Authenticate"])
async def test_nothing_of_ours_goes_where_a_registry_leads(header: str) -> None:
    """An upload's Location, a page's Link, a token service, a redirection: on another server none is followed."""
    visited: list[str] = []

    async def other(request: web.Request) -> web.Response:
        visited.append(request.headers.get("Authorization", "nothing"))
        return web.json_response({"token": "t"})

    elsewhere = web.Application()
    elsewhere.router.add_route("*", "/{path:.*}", other)
    evil = TestServer(elsewhere)
    await evil.start_server()
    target = f"http://localhost:{evil.port}/x"

    async def handle(request: web.Request) -> web.Response:
        if header == "WWW-Authenticate":
            return web.Response(status=401, headers={header: f'Bearer realm="{target}",service="s"'})
        if header == "Link":
            return web.json_response({"repositories": []}, headers={header: f'<{target}>; rel="next"'})
        return web.Response(status=202 if request.method == "POST" else 307, headers={header: target})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    server = TestServer(app)
    await server.start_server()
    credentials = Credentials(username="me", password="secret")
    async with HttpRegistry.open(f"http://127.0.0.1:{server.port}", credentials=credentials) as registry:
        asked = [registry.put_blob("a", sha256(b"x"), 1, _once(b"x")), registry.manifest("a", "1")]
        for asking in asked if header == "Location" else [_all(registry)]:
            with pytest.raises(RegistryUnavailable) as raised:
                await asking
            assert raised.value.code == "registry_elsewhere"
        for asking in asked:
            asking.close()
    assert visited == []
    await server.close()
    await evil.close()


async def _all(registry: HttpRegistry) -> None:
    assert [one async for one in registry.repositories()]


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
