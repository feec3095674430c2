"""Answers as JSON, Structs included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web


def answer(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`body` as JSON, never cached: it is about now."""
    return web.Response(
        status=status,
        content_type="application/json",
        body=msgspec.json.encode(body),
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def accepted(location: str, body: Any) -> web.Response:
    """202: asked for, to be followed at `location`."""
    return answer(body, status=202, headers={"Location": location})
