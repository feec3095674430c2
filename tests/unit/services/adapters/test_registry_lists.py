"""Lists of a registry that is none, or that gives none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.adapters.registry import HttpRegistry
from services.errors import RegistryUnavailable
from services.queries.images import registry_images
from services.queries.statistics import Statistics


@asynccontextmanager
async def _registry(status: int, body: bytes, kind: str) -> AsyncIterator[Any]:
    async def base(request: web.Request) -> web.Response:
        return web.json_response({})

    async def catalog(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type=kind)

    app = web.Application()
    app.router.add_get("/v2/", base)
    app.router.add_get("/v2/_catalog", catalog)
    async with (
        TestServer(app) as server,
        HttpRegistry.open(str(server.make_url("")), address="r:5000", stall_seconds=5) as registry,
    ):
        yield registry


@pytest.mark.parametrize(
    ("status", "body", "kind", "why"),
    [
        (404, b"page not found", "text/plain", "no list of its repositories"),
        (200, b"<html>hello</html>", "text/html", "is it a registry"),
        (200, b"[1, 2]", "application/json", "is it a registry"),
        (200, b'{"repositories": "all"}', "application/json", "is it a registry"),
        (200, b'{"repos": ["a"]}', "application/json", "is it a registry"),
        (200, b"\xff", "application/json", "is it a registry"),
    ],
)
async def test_a_catalog_that_is_none_makes_the_registry_unavailable(
    status: int, body: bytes, kind: str, why: str
) -> None:
    """For lists with the reason; statistics are unhealthy with the same."""
    async with _registry(status, body, kind) as registry:
        with pytest.raises(RegistryUnavailable, match=why):
            await registry_images(registry)
        counted = await Statistics(registry=registry).get()
    assert not counted.healthy
    assert counted.error is not None
    assert why in counted.error.message
