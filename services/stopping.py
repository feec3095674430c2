"""Being asked to stop: politely the first time, at once the second time."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Stop:
    """Counts the requests to stop: 1 is politely, 2 is at once."""

    def __init__(self) -> None:
        self._politely = asyncio.Event()
        self._at_once = asyncio.Event()

    def ask(self) -> None:
        """One more request."""
        (self._at_once if self._politely.is_set() else self._politely).set()

    @property
    def is_asked(self) -> bool:
        """Whether anybody asked."""
        return self._politely.is_set()

    async def asked(self) -> None:
        await self._politely.wait()

    async def insisted(self) -> None:
        await self._at_once.wait()


@asynccontextmanager
async def signals(stop: Stop) -> AsyncIterator[None]:
    """SIGTERM and SIGINT ask to stop while inside."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop.ask)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
