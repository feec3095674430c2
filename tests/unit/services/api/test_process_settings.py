"""The route of the process's settings."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from aiohttp.test_utils import TestClient, TestServer

from services.api.authentication import NoAuthentication
from services.api.server import application
from services.queries.settings import setting_views
from services.settings import Settings
from tests.unit.services.api.site import api_context
from tests.unit.services.twins import Cluster


async def test_every_variable_is_shown_without_its_secrets() -> None:
    """With what it means."""
    settings = msgspec.structs.replace(Settings(), redis_url="redis://user:hidden@127.0.0.1:6379/0")
    context = replace(api_context(Cluster()), settings=setting_views(settings))
    async with (
        TestClient(TestServer(application(context, authenticator=NoAuthentication()))) as client,
        client.get("/api/v1/settings") as answer,
    ):
        text = await answer.text()
    rows = {row["variable"]: row for row in msgspec.json.decode(text)["items"]}
    assert "hidden" not in text
    assert rows["CYROID_API_LISTEN"]["value"] == "127.0.0.1:8070"
    assert rows["CYROID_API_LISTEN"]["meaning"]
