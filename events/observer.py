"""What a worker tells about itself, to whoever counts (the Prometheus adapter is outside this package)."""

from __future__ import annotations

from typing import Literal, Protocol

Counter = Literal[
    "handled",  # outcomes committed
    "failed",  # attempts that failed and were counted
    "waited",  # attempts that found something away
    "conflicts",  # runs repeated because a record was changed meanwhile
    "lost_leases",  # runs whose lease another worker took, or that could not be renewed in time
    "takeovers",  # entries taken from a holder that vanished
    "phantoms",  # entries whose hand-over had got lost
    "duplicates",  # entries acknowledged because the event had an outcome already
    "dead_letters",  # entries given up
    "spoilt",  # keys passed over, because they are no stream or not what the bus keeps there
    "handed_back",  # entries handed back by a drain
]


class Observer(Protocol):
    """Counts events of one group."""

    def count(self, group: str, counter: Counter, amount: int = 1) -> None: ...

    def took(self, group: str, seconds: float) -> None:
        """One handler ran this long."""


class Silent:
    """Nobody counts."""

    def count(self, group: str, counter: Counter, amount: int = 1) -> None:
        """Not counted."""

    def took(self, group: str, seconds: float) -> None:
        """Not counted."""


SILENT = Silent()
