"""Every move of the table is made by some story of the state machine, and none that is not in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest

from services.core.deployments.deployment import State
from services.core.deployments.state_table import MOVES, Cause, Move, check_move
from tests.unit.services.core.deployments import test_evaluation, test_silence, test_transfer_start, test_transitions

STORIES: Sequence[ModuleType] = (test_evaluation, test_silence, test_transfer_start, test_transitions)


def _cases(story: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """The arguments of each case of a parametrised test; one empty set for one that takes none."""
    marks = [mark for mark in getattr(story, "pytestmark", []) if mark.name == "parametrize"]
    ways = [
        [dict(zip(_names(mark.args[0]), _values(mark.args[0], value), strict=True)) for value in mark.args[1]]
        for mark in marks
    ]
    for chosen in itertools.product(*ways):
        yield {name: value for part in chosen for name, value in part.items()}


def _names(given: str | Sequence[str]) -> list[str]:
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)


def _values(given: str | Sequence[str], value: Any) -> Sequence[Any]:
    return [value] if len(_names(given)) == 1 else list(value)


def test_every_move_of_the_table_is_made_by_some_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawing shows no move that the code never makes."""
    made: set[Move] = {Move(None, "requested", "resolving")}  # by asking alone: no move leads there

    def remember(before: State | None, cause: Cause, after: State) -> None:
        check_move(before, cause, after)
        made.add(Move(before, cause, after))

    monkeypatch.setattr("services.core.deployments.transition_builder.check_move", remember)
    stories = [getattr(module, name) for module in STORIES for name in dir(module) if name.startswith("test_")]
    for story in stories:
        for case in _cases(story):
            story(**case)
    assert set(MOVES) - made == set()
