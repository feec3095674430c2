"""In-flight entries: the entries that one worker handles right now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from events.lease import Lease
from events.messages import TransferProgress


@dataclass(slots=True, eq=False)
class InFlightEntry:
    """One entry being handled: its task, its latest progress, when its lease was last confirmed, and whether it was
    deferred.
    """

    lease: Lease
    confirmed: float
    task: asyncio.Task[None] | None = None
    fate: Literal["running", "lost", "handed_back"] = "running"
    progress: TransferProgress | None = None
    told: TransferProgress | None = None
    deferred: bool = False
    correlation_id: str = ""

    def report(self, progress: TransferProgress) -> None:
        """The implementation of a handler's `Delivery.report`."""
        self.progress = progress

    def has(self, lease: Lease) -> bool:
        """Whether it still runs under this lease."""
        return self.fate == "running" and (self.lease.holder, self.lease.deliveries) == (lease.holder, lease.deliveries)

    def end(self, fate: Literal["lost", "handed_back"]) -> None:
        """Cancel the handler with a reason.

        After its first step: a task that is cancelled before runs none of its code, so it would keep its slot for ever.
        """
        if self.task is not None and self.fate == "running":
            self.fate = fate
            asyncio.get_running_loop().call_soon(self.task.cancel)


class InFlightEntries:
    """All in-flight entries by place, at most `slots`. Wakes those who wait for a free slot, or for the end of all."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._runs: dict[tuple[str, str], InFlightEntry] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[InFlightEntry]:
        return iter(list(self._runs.values()))

    def __contains__(self, place: tuple[str, str]) -> bool:
        return place in self._runs

    def at(self, place: tuple[str, str]) -> InFlightEntry | None:
        return self._runs.get(place)

    @property
    def free(self) -> int:
        return self._slots - len(self._runs)

    @property
    def places(self) -> list[tuple[str, str]]:
        return list(self._runs)

    def add(self, run: InFlightEntry) -> None:
        self._runs[run.lease.place] = run

    def remove(self, run: InFlightEntry) -> None:
        if self._runs.get(run.lease.place) is run:
            del self._runs[run.lease.place]
        self._changed.set()

    async def until_free(self) -> None:
        while self.free < 1:
            self._changed.clear()
            await self._changed.wait()

    async def until_idle(self) -> None:
        while self._runs:
            self._changed.clear()
            await self._changed.wait()
