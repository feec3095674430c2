"""Recent answers: what was found a moment ago is the answer for everybody who began to ask before that.

A deployment to a thousand ranges asks a thousand times for the same images within seconds. An answer counts for an
image only if its question was put after the image came into its state: content that was there before a deployment was
asked for is never missed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

#: An answer is given so long. What it tells of may be gone, or other content have the name, by so much.
KEPT = timedelta(seconds=1)
Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[Answer]):
    """An answer, and when its question was put."""

    answer: Answer
    at: datetime


class RecentAnswers(Generic[Question, Answer]):
    """The answers that one replica got."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Question, _Kept[Answer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, question: Question, *, since: datetime, now: datetime) -> Answer | None:
        """The answer to a question that was put after `since`, and not long before `now`; None if there is none."""
        known = self._kept.get(question)
        if known is None or known.at <= since or not timedelta(0) <= now - known.at <= KEPT:
            return None
        return known.answer

    def keep(self, question: Question, answer: Answer, at: datetime) -> None:
        """Remember the answer to a question that was put at `at`; those that are too old by then go."""
        self._kept[question] = _Kept(answer, at)
        self._kept.move_to_end(question)
        while abs(at - next(iter(self._kept.values())).at) > KEPT:
            self._kept.popitem(last=False)
