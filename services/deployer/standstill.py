"""Report of a standstill of admission: no pass over the queue of slots ends, as Redis refuses it or is away."""

from __future__ import annotations


class Standstill:
    """How long no pass over the queue has ended; reported once a minute."""

    def __init__(self, *, after_seconds: float = 10.0, again_seconds: float = 60.0) -> None:
        self._after, self._again = after_seconds, again_seconds
        self._since: float | None = None
        self._told = float("-inf")

    def moved(self, now: float) -> None:
        self._since = None

    def failed(self, now: float) -> float | None:
        """How long it lasts, if that is to be reported now."""
        if self._since is None:
            self._since = now
        if now - self._since < self._after or now - self._told < self._again:
            return None
        self._told = now
        return now - self._since
