"""Refusals of ranges' messages, logged for operators: a line a minute for each range.

A range may publish a thousand invalid messages a second. They are counted (`dead_letters`, `refused`) and the last ones
kept, but they fill no log.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from events.messages import Failure

AGAIN_SECONDS = 60.0
_REMEMBERED = 1000
_TEXT = 500

_log = logging.getLogger(__name__)


class Refusals:
    """The refusals of one worker."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._told: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, stream: str, failure: Failure) -> None:
        """Count one entry of `stream` that is given up, and log it at most once a minute."""
        now = self._clock()
        at, since = self._told.pop(stream, (float("-inf"), 0))
        if now - at < AGAIN_SECONDS:
            self._told[stream] = (at, since + 1)
            return
        self._told[stream] = (now, 0)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        _log.warning(
            "an entry of %s is refused (%s): %s; %d more since the last such line",
            stream,
            failure.code[:_TEXT],
            failure.message[:_TEXT],
            since,
        )
