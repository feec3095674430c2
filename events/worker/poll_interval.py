"""Poll interval of an idle worker: it grows while nothing happens, and ends when a deferred entry is due.

A new entry ends a wait at once. What may come late by an interval is an entry that waits for a lock of another process,
and a timer that another process set.
"""

from __future__ import annotations

#: How long one wait for new entries lasts after something happened, and after a long time in which nothing did.
POLL_SECONDS = 0.2
IDLE_POLL_SECONDS = 2.0
#: A due time nearer than this is not aimed at: clocks are not that exact, and a wait of nothing would spin.
SHORTEST_SECONDS = 0.005
#: How much longer each wait is than the one before.
GROWTH = 1.5
#: A read ends by itself, when its time is over, a tenth of a second late: given up before, it would cost a second look.
SLACK = 1.1
#: Between two recoveries of a busy worker at most; an idle one makes them at every second look.
TEND_SECONDS = 1.0


class PollInterval:
    """How long the next wait may last, `longest_seconds` at most. `due_seconds` is
    what the last take said of the next deferred entry."""

    def __init__(self, longest_seconds: float = IDLE_POLL_SECONDS) -> None:
        self._longest = longest_seconds
        self._idle = POLL_SECONDS
        self.due_seconds: float | None = None

    @property
    def seconds(self) -> float:
        """The next wait. An entry that is due and was not to be had is looked for again after the shortest one."""
        if self.due_seconds is None:
            return self._idle
        return min(self._idle, max(self.due_seconds, SHORTEST_SECONDS) if self.due_seconds else POLL_SECONDS)

    @property
    def patience_seconds(self) -> float:
        """After which a wait that did not end by itself is given up."""
        return self._idle * SLACK if self.seconds == self._idle else self.seconds

    @property
    def longest(self) -> float:
        """The next wait if nothing that is deferred ends it before."""
        return self._idle

    @property
    def tend_seconds(self) -> float:
        """Between two recoveries."""
        return 2 * self._longest if self._idle >= self._longest else TEND_SECONDS

    def reset(self) -> None:
        """Something happened, or the bus was away."""
        self._idle = POLL_SECONDS

    def grow(self) -> None:
        """A wait ended without anything."""
        self._idle = min(self._idle * GROWTH, self._longest)
