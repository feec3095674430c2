"""Findings: the result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "wrong", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `ok`, `wrong` or `note` (nothing is broken), about what, what was found, what to do."""

    state: State
    what: str
    found: str
    advice: str = ""


class Wrong(Exception):
    """A check that did not pass: what was found, and what to do."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.advice = advice


class Note(Wrong):
    """A check that passed, with a remark."""
