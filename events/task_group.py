"""Task group: `asyncio.TaskGroup` without a fault of Debian 12's Python.

When a task of a group fails while the group's owner waits at the end of the block, the group cancels its owner and
forgets to take that request back, so `Task.cancelling()` stays 1 (CPython gh-116720, mended in 3.13). On Python 3.11.2
every later `asyncio.timeout` in that task then lets a CancelledError out where a TimeoutError belongs: an ordinary
failure, handled well, turns the next slow reply into what looks like a request to stop.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class TaskGroup(asyncio.TaskGroup):
    """A task group that does not leave a cancellation request behind in the task that owns it."""

    async def __aenter__(self) -> Self:
        owner = asyncio.current_task()
        self._requests_before = owner.cancelling() if owner else 0
        await super().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        except BaseExceptionGroup:
            owner = asyncio.current_task()
            while owner and owner.cancelling() > self._requests_before:
                owner.uncancel()
            raise
