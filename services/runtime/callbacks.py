"""Callbacks of callers: one that raises is logged and not called again, and the work goes on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

from services.runtime.telemetry import get_logger

T = TypeVar("T")
log = get_logger(role="callback")


def guarded(callback: Callable[[T], object] | None, what: str) -> Callable[[T], None]:
    """`callback` as one that never raises; `what` names it in the log. None is a callback that does nothing.

    A coroutine function cannot be a progress callback, because nothing would await it: that is logged once as well.
    """
    failed = callback is None

    def call(value: T) -> None:
        nonlocal failed
        if failed or callback is None:
            return
        try:
            result = callback(value)
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError("it is a coroutine function: give a plain function")
        except Exception as problem:
            failed = True
            log.warning("a callback failed and is not called again", what=what, why=repr(problem), exc_info=problem)

    return call
