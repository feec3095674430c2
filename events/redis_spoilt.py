"""Streams that were passed over, said to whoever operates Redis.

A key of one stream that is of another kind than it should be, or an entry that is none, must not keep a worker from
its other streams: the scripts pass it over and name it, and here it becomes a line in the log, once a minute for each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic

from events.redis_client import Reply

AGAIN_SECONDS = 60.0
#: So many keys are remembered; more are told again sooner.
_REMEMBERED = 1000

_log = logging.getLogger(__name__)


class Spoilt:
    """What one bus found."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._told: dict[str, float] = {}

    def hear(self, found: Sequence[Reply]) -> int:
        """Tells pairs of key and reason, as the scripts' replies hold them; how many there were."""
        for key, reason in found:
            self.tell(key.decode(errors="replace"), reason.decode(errors="replace"))
        return len(found)

    def tell(self, key: str, reason: str) -> None:
        """One line, unless it was said a short while ago."""
        now = self._clock()
        if now - self._told.get(key, float("-inf")) < AGAIN_SECONDS:
            return
        if len(self._told) >= _REMEMBERED:
            self._told.clear()
        self._told[key] = now
        _log.warning(
            "passed over %s in Redis, other streams go on: %s. Look at it with redis-cli TYPE; the bus makes it anew"
            " when it is deleted",
            key,
            reason,
        )
