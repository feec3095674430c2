"""Graceful shutdown: the first request to stop lets work end, the second one stops at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Stop:
    """Counts the requests to stop: the first drains, the second stops at once."""

    def __init__(self) -> None:
        self._politely = asyncio.Event()
        self._at_once = asyncio.Event()

    def ask(self) -> None:
        """Add one request to stop."""
        (self._at_once if self._politely.is_set() else self._politely).set()

    @property
    def is_asked(self) -> bool:
        """Whether a stop was requested."""
        return self._politely.is_set()

    async def asked(self) -> None:
        await self._politely.wait()

    async def insisted(self) -> None:
        await self._at_once.wait()


@asynccontextmanager
async def signals(stop: Stop) -> AsyncIterator[None]:
    """Inside, SIGTERM and SIGINT are requests to stop."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop.ask)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
