"""docs/http.md has the routes of the code."""

from __future__ import annotations

from pathlib import Path

from services.api.openapi import drawn_into
from services.api.routes import ROUTES

PAGE = Path(__file__).parents[4] / "docs/http.md"


def test_the_page_is_drawn_from_the_table_of_routes() -> None:
    """`scripts/draw-reference` would change nothing."""
    assert drawn_into(PAGE.read_text(), ROUTES) == PAGE.read_text()
