"""docs/errors.md has the register of errors."""

from __future__ import annotations

from pathlib import Path

from services.errors.page import page

PAGE = Path(__file__).parents[4] / "docs/errors.md"


def test_the_document_is_drawn_from_the_register() -> None:
    """`scripts/draw-reference` would change nothing."""
    assert PAGE.read_text() == page()
