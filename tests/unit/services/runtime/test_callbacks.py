"""Callbacks of callers that fail."""

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from services.runtime.callbacks import guarded


def test_a_callback_that_raises_is_logged_once_and_never_called_again() -> None:
    """What it looked at does not notice."""
    seen: list[int] = []

    def fails_at_two(value: int) -> None:
        seen.append(value)
        if value == 2:
            raise ZeroDivisionError("oh")

    call = guarded(fails_at_two, "progress of x:1")
    with capture_logs() as lines:
        for value in range(5):
            call(value)
    assert seen == [0, 1, 2]
    assert len([line for line in lines if "not called again" in line["event"]]) == 1


@pytest.mark.filterwarnings("error")
def test_a_coroutine_function_is_no_callback() -> None:
    """Nothing would await what it returns."""

    async def progress(value: int) -> None:
        raise AssertionError(value)

    call = guarded(progress, "progress of x:1")
    with capture_logs() as lines:
        call(1)
        call(2)
    assert "give a plain function" in lines[0]["why"]


def test_no_callback_is_one_that_does_nothing() -> None:
    """So that nobody has to ask."""
    call: Callable[[int], None] = guarded(None, "x")
    call(1)
