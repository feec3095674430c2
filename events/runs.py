"""The entries that one worker handles right now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from events.lease import Lease
from events.messages import TransferProgress


@dataclass(slots=True, eq=False)
class Run:
    """One entry being handled: its task, its latest progress, and when its lease was last known to stand."""

    lease: Lease
    confirmed: float
    task: asyncio.Task[None] | None = None
    fate: Literal["running", "lost", "handed_back"] = "running"
    progress: TransferProgress | None = None
    told: TransferProgress | None = None
    correlation_id: str = ""

    def report(self, progress: TransferProgress) -> None:
        """What a handler's `Delivery.report` does."""
        self.progress = progress

    def has(self, lease: Lease) -> bool:
        """Whether it still runs under this very lease."""
        return self.fate == "running" and (self.lease.holder, self.lease.deliveries) == (lease.holder, lease.deliveries)

    def end(self, fate: Literal["lost", "handed_back"]) -> None:
        """Cancel the handler, saying why."""
        if self.task is not None and self.fate == "running":
            self.fate = fate
            self.task.cancel()


class Runs:
    """All runs by place, at most `slots`; wakes those who wait for a free slot or for the end of all."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._runs: dict[tuple[str, str], Run] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def __contains__(self, place: tuple[str, str]) -> bool:
        return place in self._runs

    def at(self, place: tuple[str, str]) -> Run | None:
        return self._runs.get(place)

    @property
    def free(self) -> int:
        return self._slots - len(self._runs)

    @property
    def places(self) -> list[tuple[str, str]]:
        return list(self._runs)

    def add(self, run: Run) -> None:
        self._runs[run.lease.place] = run

    def remove(self, run: Run) -> None:
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
