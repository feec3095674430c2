"""`/api/v1/settings`: the variables that the API's process runs with, secrets masked."""

from __future__ import annotations

from typing import Any

from services.api.route import Call, NoBody, NoQuery, Reply, Route
from services.queries.page import Page
from services.queries.settings import SettingView


async def _settings(call: Call[NoQuery, NoBody]) -> Reply[Page[SettingView]]:
    return Reply(Page(items=list(call.context.settings)))


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    Route(
        method="GET",
        path="/api/v1/settings",
        summary="every variable with its value in the API's process, and what it means; secrets are masked",
        handler=_settings,
        query=NoQuery,
        body=NoBody,
        answer=Page[SettingView],
    ),
)
