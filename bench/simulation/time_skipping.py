"""Time-skipping event loop: time passes only while every task sleeps, so an hour takes a second.

Work for threads is done at once, in the loop's own, and tasks know their order: it all happens alike every time.
Sockets are real, and are looked at before time moves on: what one end of a loopback connection sent has arrived at the
other by then.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

Result = TypeVar("Result")
#: What a loopback connection gets, in real time, to bring what the system has not handed over yet.
_SOCKETS_SECONDS = 0.0002
#: The loop's own pair of sockets, to be woken from a signal handler.
_OWN_SOCKETS = 1
Ready = list[tuple[selectors.SelectorKey, int]]


class _Jumping(selectors.SelectSelector):
    """Waits for no timer: the time that it was told to wait is the loop's next moment."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = 0.0

    def select(self, timeout: float | None = None) -> Ready:
        if len(self.get_map()) > _OWN_SOCKETS:
            ready: Ready = super().select(0) or (super().select(_SOCKETS_SECONDS) if timeout != 0 else [])
            if ready:
                return ready
        if timeout is None:
            raise RuntimeError("everybody waits and nobody will ever come: this installation is deadlocked")
        self.moment += max(timeout, 0.0)
        return []


class _Task(asyncio.Task[Any]):
    """In a set, tasks come in the order of their hashes, which are their places in memory if nobody says otherwise."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class FakedLoop(asyncio.SelectorEventLoop):
    """Starts at 0."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)
        numbers = itertools.count()
        self.set_task_factory(lambda loop, coro, **options: _Task(coro, number=next(numbers), loop=loop, **options))

    def time(self) -> float:
        return self._jumping.moment

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Result], *args: Any
    ) -> asyncio.Future[Result]:
        """Done before it is waited for."""
        future: asyncio.Future[Result] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as problem:  # noqa: BLE001  whoever waits for it gets it
            future.set_exception(problem)
        return future
