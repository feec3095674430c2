"""Observer of a worker: the counters it reports (the Prometheus adapter is outside this package)."""

from __future__ import annotations

from typing import Literal, Protocol

Counter = Literal[
    "handled",  # outcomes committed
    "failed",  # attempts that failed and were counted
    "waited",  # attempts that found a dependency unavailable
    "conflicts",  # runs repeated because a record was changed meanwhile
    "lost_leases",  # runs whose lease another worker took, or that could not be renewed in time
    "takeovers",  # entries taken from a holder that crashed
    "phantoms",  # orphaned pending entries: the reply with them was lost
    "duplicates",  # entries acknowledged because the event had an outcome already
    "dead_letters",  # entries given up
    "refused",  # entries whose message may not be on their stream
    "spoilt",  # keys skipped, because they are no stream or not what the bus keeps there
    "handed_back",  # entries released by a drain
]


class Observer(Protocol):
    """Counts events of one group."""

    def count(self, group: str, counter: Counter, amount: int = 1) -> None: ...

    def took(self, group: str, seconds: float) -> None:
        """Record how long one handler ran."""


class Silent:
    """An observer that counts nothing."""

    def count(self, group: str, counter: Counter, amount: int = 1) -> None:
        """Do nothing."""

    def took(self, group: str, seconds: float) -> None:
        """Do nothing."""


SILENT = Silent()
