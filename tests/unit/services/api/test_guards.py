"""Requests that a foreign page makes a browser send are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from services.api.guards import guards
from services.runtime.problem_middleware import problems

JSON = {"Content-Type": "application/json"}
Client = TestClient[Any, Any]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A server that answers everything it lets through, also under the name cyroid-api."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="reached")

    app = web.Application(middlewares=[problems, guards(["cyroid-api"])])
    app.router.add_route("*", "/{rest:.*}", answer)
    async with TestClient(TestServer(app)) as made:
        yield made


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8070", "127.0.0.1:1", "[::1]:8070", "172.30.0.23:8070", "Cyroid-API:8070", "a.localhost"],
)
async def test_known_names_and_addresses_are_answered(client: Client, host: str) -> None:
    """An address cannot be given to somebody else's name."""
    async with client.get("/livez", headers={"Host": host}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8070", "localhost.evil.example", "[::1", ""])
async def test_other_names_are_refused(client: Client, host: str) -> None:
    """DNS rebinding: the page's own name, given this server's address."""
    async with client.get("/livez", headers={"Host": host}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (421, "unknown_host")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"])
async def test_a_foreign_origin_changes_nothing(client: Client, origin: str) -> None:
    """Not even with JSON, which a page may not send without asking first."""
    async with client.post("/x", data=b"{}", headers={"Origin": origin, **JSON}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (403, "foreign_origin")
    async with client.get("/x", headers={"Origin": origin}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
async def test_what_the_browser_says_of_the_site_counts(client: Client, site: str, status: int) -> None:
    """Browsers name it also where they leave the origin out."""
    async with client.delete("/x", headers={"Sec-Fetch-Site": site}) as answer:
        assert answer.status == status


async def test_pages_of_this_server_may_change_things(client: Client) -> None:
    """Under whichever name they were loaded."""
    headers = {"Host": "cyroid-api:8070", "Origin": "http://cyroid-api:8070", **JSON}
    async with client.post("/x", data=b"{}", headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_a_body_must_be_json(client: Client, kind: str) -> None:
    """The kinds that any page may send are refused."""
    async with client.post("/x", data=b"{}", headers={"Content-Type": kind}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (415, "unsupported_media_type")


async def test_a_request_without_a_body_needs_no_type(client: Client) -> None:
    """Cancelling and forgetting have none."""
    async with client.delete("/x") as answer:
        assert answer.status == 200
