"""Selection of streams: which of a thousand streams the next take reads.

A deployer consumes an outbox per range: checking a thousand streams for each entry would cost more than the entry.
So with more than `FEW` streams a take looks at those that are known to have something (one read over all of them
names them) and, in turn, at so many others that each is looked at twice a second: timers and entries deferred by
other replicas are found that way, and so is whatever a read missed. Where some are known to have something, they and
the others are looked at in turns: while requests pile up, each take is filled by them alone, and what the ranges say of
their transfers would wait for all of them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from math import ceil

from events.lease import Lease, SingleFlightLock

#: So many streams are looked at each time.
FEW = 16
#: How long it takes at most until each of many streams was looked at.
ROUND_SECONDS = 0.5
#: So many are looked at in a second at most: with more than half of it, a round takes longer.
MOST_A_SECOND = 1000
#: A read that waits for news names all streams, and costs Redis a microsecond for each: a tenth of its time at most.
MOST_READ_A_SECOND = 100_000
#: How many streams more than entries wanted: some turn out to be empty.
_SPARE = 8
#: Flights remembered for those who wait for them; what is forgotten is found by the round.
_FLIGHTS = 5000


class Watch:
    """What one holder knows about its streams. A mark is the last entry id after which nothing new is known."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}
        self._skipped: set[str] = set()
        self._busy: OrderedDict[str, None] = OrderedDict()
        self._round: deque[str] = deque()
        self._looked_at = float("-inf")
        self._read_at = float("-inf")
        self._part: list[str] = []
        self._busy_alone = False
        self._waiting: OrderedDict[SingleFlightLock, set[tuple[str, str]]] = OrderedDict()

    def choose(self, streams: Sequence[str], count: int, now: float) -> list[str]:
        """Which streams to read for `count` entries, at loop time `now`."""
        if len(streams) <= FEW:
            return list(streams)
        known = set(streams)
        for gone in [stream for stream in self._busy if stream not in known]:
            del self._busy[gone]
        busy = list(self._busy)[: count + _SPARE if count else 0]
        self._busy_alone = bool(busy) and not self._busy_alone
        self._part = [] if self._busy_alone else self._next(streams, now)
        return list(dict.fromkeys((*self._part, *busy)))

    def _next(self, streams: Sequence[str], now: float) -> list[str]:
        """The next part of the round, as long as the time since the last one."""
        passed = min((now - self._looked_at) / max(ROUND_SECONDS, len(streams) / MOST_A_SECOND), 1.0)
        wanted = ceil(len(streams) * passed)
        self._looked_at = now
        if len(self._round) < wanted:
            self._round.extend(streams)
        return [self._round.popleft() for _ in range(wanted)]

    def took(self, streams: Sequence[str], marks: Sequence[str]) -> None:
        """Note the result of a take: a mark, '+' where there is more, '!' where it cannot be read, or none for
        streams not reached.
        """
        for stream, mark in zip(streams, marks, strict=True):
            if mark == "!":
                self._skipped.add(stream)
                self._busy.pop(stream, None)
                continue
            if mark:
                self._skipped.discard(stream)
            if mark == "+":
                self._busy[stream] = None
                self._busy.move_to_end(stream)
            elif mark:
                self._marks[stream] = mark
                self._busy.pop(stream, None)
        if any(marks):  # none at all where no entry was wanted, only timers
            reached = {stream for stream, mark in zip(streams, marks, strict=True) if mark}
            self._round.extendleft(stream for stream in reversed(self._part) if stream not in reached)
        self._part = []

    def marks(self, streams: Iterable[str]) -> Mapping[str, str]:
        """The entry ids after which a read would find something new; without streams that cannot be read."""
        return {stream: self._marks.get(stream, "0-0") for stream in streams if stream not in self._skipped}

    def read_pause_seconds(self, count: int, now: float) -> float:
        """How long a read of `count` streams waits after the last one, at loop time `now`; it is made then.

        Who reads seldom waits for nothing. What comes meanwhile is found by that read, or by the round.
        """
        pause = max(0.0, self._read_at + count / MOST_READ_A_SECOND - now) if count > FEW else 0.0
        self._read_at = now + pause
        return pause

    def news(self, streams: Iterable[str]) -> None:
        """Note that these streams may have new entries."""
        self._busy.update(dict.fromkeys(streams))

    def acquired(self, lease: Lease, single_flight: SingleFlightLock, *, free: bool) -> None:
        """An entry got its single-flight lock, or waits for it."""
        waiting = self._waiting.setdefault(single_flight, set())
        if free:
            waiting.discard(lease.place)
        else:
            waiting.add(lease.place)
        if not waiting:
            del self._waiting[single_flight]
        elif len(self._waiting) > _FLIGHTS:
            self._waiting.popitem(last=False)

    def lock_released(self, single_flight: SingleFlightLock | None) -> None:
        """An entry that waits for this lock is due now."""
        if single_flight is not None:
            self.news(stream for stream, _ in self._waiting.get(single_flight, ()))
