"""Stall watch (watchdog): ends work that makes no progress within a time.

A watch ends its block with Stalled when nothing moved for its patience. A pull that an engine keeps waiting
behind other pulls is not stalled as long as those move: `Activity` passes their movement on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from services.errors import Stalled


class Watch:
    """One piece of work. `queued` is set while the other side makes it wait for other work of ours.

    `retell` says again how far the work is, so that those who follow it know that it is waiting and not lost.
    """

    def __init__(self, patience_seconds: float) -> None:
        self.queued = False
        self.retell: Callable[[], None] = lambda: None
        self._patience = patience_seconds
        self._scope: asyncio.Timeout | None = None

    def alive(self) -> None:
        """Note that something moved: the patience begins anew."""
        self._until(self._patience)

    def bear(self, seconds: float) -> None:
        """Set how long the other side may be silent from now on."""
        self._patience = seconds
        self.alive()

    def hurry(self, seconds: float) -> None:
        """Shorten the patience until the next movement: the other side reported trouble."""
        if self._scope is not None:
            left = (self._scope.when() or 0) - asyncio.get_running_loop().time()
            if left > seconds:
                self._until(seconds)

    def _until(self, seconds: float) -> None:
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time() + seconds)

    @asynccontextmanager
    async def guard(self, what: str) -> AsyncIterator[None]:
        """Watch inside this block. Raises Stalled when nothing moved for too long."""
        scope = asyncio.timeout(self._patience)
        try:
            async with scope:
                self._scope = scope
                yield
        except TimeoutError as late:
            if not scope.expired():
                raise
            raise Stalled(f"{what} stood still for more than {self._patience:g} s") from late
        finally:
            self._scope = None


class Activity:
    """All watched transfers on one engine."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()

    @contextmanager
    def watch(self, patience_seconds: float) -> Iterator[Watch]:
        watch = Watch(patience_seconds)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def moved(self, watch: Watch) -> None:
        """Note that the work of `watch` moved: everything that is queued behind it counts as alive."""
        watch.alive()
        for other in self._watches:
            if other.queued and other is not watch:
                other.alive()
                other.retell()
