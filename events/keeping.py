"""Keeps leases: renews all of a worker's in one call and ends the runs whose lease is gone.

A lease is believed to stand from the moment *before* the call that confirmed it. When that was most of a lease ago
(Redis away, this process stopped), the run is cancelled before anybody else may have the entry.
"""

from __future__ import annotations

import asyncio

from events.bus import BusAway, BusRefused
from events.handling import Handling
from events.lease import Bus, Holder
from events.observer import Observer
from events.runs import Run, Runs

#: Leases are renewed this often in a lease, and given up when unconfirmed for this much of it.
RENEWALS = 4
PATIENCE = 0.75
#: Progress is told this often.
TELL_SECONDS = 1.0


class Keeper:
    """One task of a worker."""

    def __init__(self, bus: Bus, holder: Holder, runs: Runs, handling: Handling, observer: Observer) -> None:
        self._bus = bus
        self._holder = holder
        self._runs = runs
        self._handling = handling
        self._observer = observer

    async def run(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop().time
        period = self._holder.lease_seconds / RENEWALS
        while True:
            await asyncio.sleep(min(TELL_SECONDS, period / 2))
            now = clock()
            due = [run for run in self._runs if now - run.confirmed >= period / 2 or run.progress is not run.told]
            if due:
                await self._renew(due, now, period)
            self._give_up_stale(clock())

    async def _renew(self, due: list[Run], now: float, period: float) -> None:
        leases = [(run.lease, self._handling.news(run)) for run in due]
        try:
            async with asyncio.timeout(period):
                lost = await self._bus.renew(leases)
        except (BusAway, BusRefused, TimeoutError):
            return
        gone = {lease.place for lease in lost}
        for run in due:
            if run.lease.place in gone:
                self._lose(run)
            else:
                run.confirmed = now

    def _give_up_stale(self, now: float) -> None:
        for run in self._runs:
            if now - run.confirmed >= self._holder.lease_seconds * PATIENCE:
                self._lose(run)

    def _lose(self, run: Run) -> None:
        if run.fate == "running" and run.lease.place in self._runs:
            self._observer.count(self._holder.group, "lost_leases")
            run.end("lost")
