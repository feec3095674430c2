"""Skipped streams: keys of another kind that the scripts skip; logged and counted for operators.

A key of one stream that is of another kind than it should be, or an entry that is none, must not keep a worker from
its other streams: the scripts pass it over and name it, and here it becomes a line in the log, once a minute for each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic

from events.redis.client import Reply

AGAIN_SECONDS = 60.0
#: So many keys are remembered; more are told again sooner.
_REMEMBERED = 1000

_log = logging.getLogger(__name__)


class SkippedStreams:
    """The skipped streams of one bus."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._told: dict[str, float] = {}

    def report(self, found: Sequence[Reply]) -> int:
        """Log pairs of key and reason, as the scripts' replies hold them. Returns how many there were."""
        for key, reason in found:
            self.log(key.decode(errors="replace"), reason.decode(errors="replace"))
        return len(found)

    def log(self, key: str, reason: str) -> None:
        """Log one line, at most once a minute for each key."""
        now = self._clock()
        if now - self._told.get(key, float("-inf")) < AGAIN_SECONDS:
            return
        if len(self._told) >= _REMEMBERED:
            self._told.clear()
        self._told[key] = now
        _log.warning(
            "skipped %s in Redis, other streams go on: %s. Inspect it with redis-cli TYPE; the bus makes it anew"
            " when it is deleted",
            key,
            reason,
        )
