"""Lease renewal: renews all of a worker's leases in one call and ends the runs whose lease is gone.

A lease is believed to stand from the moment *before* the call that confirmed it. When that was most of a lease ago
(Redis away, this process stopped), the run is cancelled before anybody else may have the entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from events.bus import BusError, BusRefused, Post
from events.lease import Bus, Holder, Lease
from events.worker.entry_handler import EntryHandler
from events.worker.in_flight import InFlightEntries, InFlightEntry
from events.worker.observer import Observer

#: Leases are renewed this often in a lease, and given up when unconfirmed for this much of it.
RENEWALS = 4
PATIENCE = 0.75
#: Progress is told this often.
TELL_SECONDS = 1.0


class LeaseRenewal:
    """The task of a worker that renews its leases."""

    def __init__(
        self, bus: Bus, holder: Holder, runs: InFlightEntries, handling: EntryHandler, observer: Observer
    ) -> None:
        self._bus = bus
        self._holder = holder
        self._runs = runs
        self._handling = handling
        self._observer = observer

    async def run(self) -> None:
        """Renew until cancelled."""
        clock = asyncio.get_running_loop().time
        period = self._holder.lease_seconds / RENEWALS
        while True:
            await asyncio.sleep(min(TELL_SECONDS, period / 2))
            now = clock()
            self._give_up_stale(now)
            due = [run for run in self._standing if now - run.confirmed >= period / 2 or run.progress is not run.told]
            if due:
                await self._renew(due, now, period)
            self._give_up_stale(clock())

    @property
    def _standing(self) -> list[InFlightEntry]:
        return [run for run in self._runs if run.fate == "running"]

    async def _renew(self, due: list[InFlightEntry], now: float, period: float) -> None:
        telling = [(run, run.progress) for run in due]
        leases = [(run.lease, self._handling.news(run)) for run in due]
        # A call that hangs must not keep us from giving up the one that is unconfirmed for longest.
        patience = min(run.confirmed for run in self._standing) + self._holder.lease_seconds * PATIENCE - now
        try:
            async with asyncio.timeout(min(period, patience)):
                lost = await self._renew_or_only_lease(leases)
        except (BusError, TimeoutError):
            return
        gone = {lease.place for lease in lost}
        for run, told in telling:
            if run.lease.place in gone:
                self._lose(run)
            else:
                run.confirmed, run.told = now, told

    async def _renew_or_only_lease(self, leases: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        try:
            return await self._bus.renew(leases)
        except BusRefused:  # the progress stream, as like as not: nobody shall lose a lease for a note
            return await self._bus.renew([(lease, None) for lease, _ in leases])

    def _give_up_stale(self, now: float) -> None:
        for run in self._runs:
            if now - run.confirmed >= self._holder.lease_seconds * PATIENCE:
                self._lose(run)

    def _lose(self, run: InFlightEntry) -> None:
        if run.fate == "running" and run.lease.place in self._runs:
            self._observer.count(self._holder.group, "lost_leases")
            run.end("lost")
