"""An event loop whose time passes only while everybody sleeps: an hour of an installation takes a second."""

from __future__ import annotations

import asyncio
import selectors


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: the time that it was told to wait is the loop's next moment."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits and nobody will ever come: this installation is deadlocked")
        self.moment += max(timeout, 0.0)
        return super().select(0)


class FakedLoop(asyncio.SelectorEventLoop):
    """Starts at 0. For work in memory alone: real input and output would take no time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.moment
