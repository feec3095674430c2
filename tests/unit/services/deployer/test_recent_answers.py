"""Recent answers: one answer serves everybody who began to ask before it, for a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.deployer.recent_answers import KEPT, RecentAnswers

START = datetime(2030, 1, 1, tzinfo=UTC)
STEP = timedelta(milliseconds=1)


def answered(at: datetime) -> RecentAnswers[str, int]:
    answers = RecentAnswers[str, int]()
    answers.keep("how many?", 7, at)
    return answers


def test_who_began_to_wait_before_the_question_is_answered() -> None:
    """For so long as an answer is kept."""
    answers = answered(START)
    for now in (START, START + KEPT):
        assert answers.find("how many?", since=START - STEP, now=now) == 7


def test_what_is_newer_than_the_question_is_not_answered() -> None:
    """The answer may be from before it."""
    answers = answered(START)
    assert answers.find("how many?", since=START, now=START) is None
    assert answers.find("how many?", since=START + STEP, now=START + STEP) is None


def test_an_answer_is_not_given_for_long() -> None:
    """Nor by a clock that went back behind it."""
    answers = answered(START)
    for now in (START + KEPT + STEP, START - STEP):
        assert answers.find("how many?", since=START - KEPT, now=now) is None


def test_another_question_is_not_answered() -> None:
    """Nor one that nobody put."""
    assert answered(START).find("how few?", since=START - STEP, now=START) is None


def test_old_answers_take_no_room() -> None:
    """Those that can be given to nobody go with the next one."""
    answers = answered(START)
    answers.keep("how few?", 1, START + KEPT)
    assert len(answers) == 2
    answers.keep("how few?", 1, START + KEPT + STEP)
    assert len(answers) == 1
