"""Waiting for a condition, within a bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator


def poll(condition: Callable[[], bool], *, seconds: float, every: float = 0.03) -> bool:
    """Whether `condition` became true within `seconds`."""
    for _ in _ticks(seconds, every):
        if condition():
            return True
    return condition()


def _ticks(seconds: float, every: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(every)
