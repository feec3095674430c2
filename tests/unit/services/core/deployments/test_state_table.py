"""The table of moves and its drawing."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.core.deployments.state_table import MOVES, check_move, drawing, drawn_into, page

ROOT = Path(__file__).parents[5]


def test_the_page_in_the_docs_is_the_table() -> None:
    """docs/deployment-states.md says what the code does."""
    assert (ROOT / "docs" / "deployment-states.md").read_text() == page()


def test_the_architecture_shows_the_table() -> None:
    """ARCHITECTURE.md itself draws the states and moves that the code has."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert drawing() in text
    assert text == drawn_into(text)


def test_a_document_without_marks_is_refused() -> None:
    """The drawing is put nowhere by guess."""
    with pytest.raises(ValueError, match="put the marks"):
        drawn_into("# Architecture")


def test_every_open_state_leads_to_an_end() -> None:
    """From every state an image can become ready, failed or cancelled."""
    for start in ("resolving", "pushing", "queued", "pulling", "falling_back", "loading"):
        seen, todo = set[str](), {start}
        while todo:
            state = todo.pop()
            seen.add(state)
            todo |= {move.after for move in MOVES if move.before == state} - seen
        assert {"ready", "failed", "cancelled"} <= seen


def test_a_move_outside_the_table_is_a_mistake() -> None:
    """The machine cannot make a move that the drawing does not show."""
    with pytest.raises(AssertionError, match="no move from ready to pulling"):
        check_move("ready", "slot free", "pulling")
