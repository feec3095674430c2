"""Cancellation of transfers that run in this process, from another handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.errors import CyroidError

#: How many cancelled ids are remembered for requests that are still to be read; the record in Redis remembers all.
REMEMBERED = 10_000


class Cancelled(CyroidError):
    """The transfer was cancelled."""

    code = "cancelled"


class Cancellation:
    """`scope` ends with Cancelled when `cancel` is called for its transfer, before or while it runs."""

    def __init__(self) -> None:
        self._running: dict[str, set[asyncio.Timeout]] = {}
        self._cancelled: dict[str, None] = {}

    @property
    def running(self) -> list[str]:
        """Transfers inside their scope now."""
        return list(self._running)

    def cancel(self, transfer_id: str) -> bool:
        """Stop the transfer, now or when it begins. Returns whether it was running."""
        self._cancelled[transfer_id] = None
        while len(self._cancelled) > REMEMBERED:
            del self._cancelled[next(iter(self._cancelled))]
        scopes = self._running.get(transfer_id, set())
        for scope in scopes:
            if not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())
        return bool(scopes)

    @asynccontextmanager
    async def scope(self, transfer_id: str) -> AsyncIterator[None]:
        if transfer_id in self._cancelled:
            raise Cancelled(f"transfer {transfer_id} was cancelled before it began")
        scope = asyncio.timeout(None)
        try:
            async with scope:
                scopes = self._running.setdefault(transfer_id, set())
                scopes.add(scope)
                try:
                    yield
                finally:
                    scopes.discard(scope)
                    if not scopes:
                        self._running.pop(transfer_id, None)
        except TimeoutError as stopped:
            if not scope.expired():
                raise
            raise Cancelled(f"transfer {transfer_id} was cancelled") from stopped
