"""Worker: consumes one subscription, with bounded concurrency, on any bus.

    fetch ── takes as many entries as there are free slots ──▶ one task per entry (events.worker.entry_handler)
    keep  ── renews all leases in one call, ends the runs whose lease is lost (events.worker.lease_renewal)
    tend  ── recovers what vanished workers left, sweeps own orphaned entries, trims, forgets vanished workers

A worker that is drained stops fetching, lets running handlers finish within a grace and hands the rest back at once;
so does one whose `run` is cancelled, without the grace.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Mapping, Sequence

from events.bus import BusError, BusUnavailable, LeaseLost
from events.codec import ENTRY_LIMIT_BYTES
from events.fair_share import is_outbox, within_share
from events.lease import Bus, Holder, Lease
from events.subscription import Subscription
from events.task_group import TaskGroup
from events.worker.backoff import backoff
from events.worker.entry_handler import EntryHandler
from events.worker.in_flight import InFlightEntries, InFlightEntry
from events.worker.lease_renewal import LeaseRenewal
from events.worker.observer import SILENT, Counter, Observer
from events.worker.poll_interval import PollInterval
from events.worker.stream_rotation import StreamRotation

TRIM_SECONDS = 60.0
#: A consumer that did nothing for so many leases, and for so long, is one of a worker that is gone.
GONE_LEASES = 10
GONE_SECONDS = 3600.0
#: What a cancelled handler gets to clean up before its entry is released anyway, and what the release may take.
CLEANUP_SECONDS = 0.5
RELEASE_SECONDS = 2.0


class Worker:
    """Runs one subscription. `name` is part of the owner that `events groups` shows; every start is a new owner."""

    def __init__(
        self,
        bus: Bus,
        subscription: Subscription,
        *,
        name: str | None = None,
        observer: Observer = SILENT,
        limit_bytes: int = ENTRY_LIMIT_BYTES,
    ) -> None:
        self._bus = bus
        self._sub = subscription
        self._observer = observer
        self.name = name or socket.gethostname()
        owner = f"{self.name}.{secrets.token_hex(4)}".replace(" ", "_")
        self.holder = Holder(subscription.group, owner, subscription.lease_seconds)
        self._runs = InFlightEntries(subscription.slots)
        self._handling = EntryHandler(
            bus,
            subscription,
            source=f"{subscription.group}@{self.name}",
            home=lambda: self._streams.all()[0],
            observer=observer,
            limit_bytes=limit_bytes,
        )
        self._taking = asyncio.Lock()
        self._draining = asyncio.Event()
        self._ended = asyncio.Event()
        self._handed_back = asyncio.Event()
        self._landed = asyncio.Event()
        self._poll = PollInterval(subscription.idle_seconds)
        self._streams = StreamRotation(subscription.streams)
        self._away_at = float("-inf")

    @property
    def running(self) -> int:
        """How many entries are being handled."""
        return len(self._runs)

    async def run(self) -> None:
        """Until cancelled, or drained. May be called once."""
        async with TaskGroup() as tasks:
            keeper = LeaseRenewal(self._bus, self.holder, self._runs, self._handling, self._observer)
            reading = [tasks.create_task(self._fetch(tasks)), tasks.create_task(self._tend(tasks))]
            keeping = tasks.create_task(keeper.run())
            try:
                await self._draining.wait()
                await self._stop_reading(reading)
                await self._ended.wait()
            finally:
                self._draining.set()
                await self._stop_reading(reading)
                keeping.cancel()
                await self._hand_back()
                self._handed_back.set()

    async def _stop_reading(self, reading: Sequence[asyncio.Task[None]]) -> None:
        """Stop after the take under way: its entries would have no owner until their leases ran out."""
        try:
            async with asyncio.timeout(RELEASE_SECONDS), self._taking:
                pass
        except TimeoutError:
            pass
        for task in reading:
            task.cancel()

    async def drain(self, grace_seconds: float) -> None:
        """Stop reading, wait up to `grace_seconds` for running handlers, hand the rest back; `run` returns then.

        Called again, with a shorter grace, it ends the first call's waiting as well.
        """
        self._draining.set()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._idle_or_ended()
        except TimeoutError:
            pass
        self._ended.set()
        async with asyncio.timeout(CLEANUP_SECONDS + RELEASE_SECONDS + 1.0):
            await self._handed_back.wait()

    async def _idle_or_ended(self) -> None:
        ended = asyncio.ensure_future(self._ended.wait())
        idle = asyncio.ensure_future(self._runs.until_idle())
        try:
            await asyncio.wait((ended, idle), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            idle.cancel()

    async def _hand_back(self) -> None:
        left = list(self._runs)
        for run in left:
            run.end("handed_back")
        waiting = [run.task for run in left if run.task]
        if waiting:
            await asyncio.wait(waiting, timeout=CLEANUP_SECONDS)
        leases = [run.lease for run in left if run.fate == "handed_back"]
        if not leases:
            return
        self._observer.count(self.holder.group, "handed_back", len(leases))
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._bus.release(leases)
        except (BusError, TimeoutError):
            return  # Redis is unavailable: the leases run out by themselves

    # ---- reading ----

    async def _fetch(self, tasks: TaskGroup) -> None:
        away = 0
        news: asyncio.Task[None] | None = None
        try:
            while not self._draining.is_set():
                await self._runs.until_free()
                streams = within_share(self._streams.rotated(), self._runs.places, self._sub.slots)
                self._landed.clear()
                try:
                    if not await self._take(tasks, streams):
                        if news is None or news.done():
                            news = asyncio.create_task(self._bus.wait(self.holder, streams, self._poll.longest))
                            news.add_done_callback(_seen)
                        await self._news_or_settled(news)
                    away = 0
                except BusError as error:
                    self._saw(error)
                    away += 1
                    await asyncio.sleep(backoff(away, base_seconds=0.1, limit_seconds=2.0))
        finally:
            if news is not None:
                news.cancel()
                await asyncio.gather(news, return_exceptions=True)

    def _saw(self, error: BusError) -> None:
        if isinstance(error, BusUnavailable):
            self._away_at = asyncio.get_running_loop().time()
            self._poll.reset()

    async def _news_or_settled(self, news: asyncio.Task[None]) -> None:
        """Wait for a new entry, for the due time of a deferred one, or for the end of a run that others wait for.

        Each wait in which none of them comes makes the next one longer.
        """
        landed = asyncio.create_task(self._landed.wait())
        try:
            await asyncio.wait((news, landed), timeout=self._poll.patience_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            landed.cancel()
        if self._landed.is_set():
            self._poll.reset()
        else:
            self._poll.grow()
        if news.done():
            news.result()

    async def _take(self, tasks: TaskGroup, streams: Sequence[str]) -> bool:
        async with self._taking:
            if self._runs.free < 1:
                return True
            started = asyncio.get_running_loop().time()
            taken = await self._bus.take(self.holder, streams, self._runs.free)
            self._poll.due_seconds = taken.due_seconds
            self._start(tasks, taken.leases, started)
        self._count({"duplicates": taken.absorbed, "spoilt": taken.skipped})
        found = bool(taken.leases or taken.absorbed)
        if found:
            self._poll.reset()
        return found

    def _start(self, tasks: TaskGroup, leases: Sequence[Lease], started: float) -> None:
        for lease in leases:
            former = self._runs.at(lease.place)
            if former is not None and former.has(lease):
                former.confirmed = started  # a failover forgot the delivery, we were given it again, and hold it now
                continue
            if former is not None:
                former.end("lost")
            run = InFlightEntry(lease, confirmed=started)
            self._runs.add(run)
            run.task = tasks.create_task(self._handle(run))

    async def _handle(self, run: InFlightEntry) -> None:
        try:
            await self._handling.handle(run)
        except LeaseLost:
            self._observer.count(self.holder.group, "lost_leases")
        except asyncio.CancelledError:
            if run.fate == "running":
                run.fate = "handed_back"
                raise
        except Exception:  # noqa: BLE001  no entry ends its worker
            # Redis refused even to put it aside: held for a while, else recovery would bring it back without a pause.
            await asyncio.sleep(self._sub.unavailable_limit_seconds)
        else:
            if run.fate == "handed_back":
                run.fate = "lost"  # settled in the last moment: nothing to release
        finally:
            self._runs.remove(run)
            if run.deferred or run.lease.single_flight is not None or is_outbox(run.lease.stream):
                self._landed.set()

    # ---- tending ----

    async def _tend(self, tasks: TaskGroup) -> None:
        clock = asyncio.get_running_loop().time
        trimmed, introduced = clock(), float("-inf")
        while not self._draining.is_set():
            try:
                await self._recover(tasks)
                if clock() - trimmed >= TRIM_SECONDS:
                    trimmed = clock()
                    for stream in self._streams.all():
                        await self._bus.trim(stream, self._sub.keep_seconds)
                if clock() - introduced >= TRIM_SECONDS:
                    gone_seconds = max(GONE_SECONDS, GONE_LEASES * self.holder.lease_seconds)
                    await self._bus.introduce(self.holder, self._streams.all(), gone_seconds)
                    introduced = clock()
            except BusError as error:
                self._saw(error)  # fetch backs off, this just comes round again
            await asyncio.sleep(min(self._poll.tend_seconds, self.holder.lease_seconds / 4))

    async def _recover(self, tasks: TaskGroup) -> None:
        streams = self._streams.to_recover()
        async with self._taking:  # so that an entry on its way to us is not taken for an orphaned one
            if self._runs.free < 1:
                await self._bus.take(self.holder, self._streams.all(), 0)  # timers fire even when all slots are taken
                return
            started = asyncio.get_running_loop().time()
            # While Redis was unavailable nobody could renew: leases that ran out by then are no sign of a crash.
            outage = started - self._away_at < self.holder.lease_seconds
            free, places = self._runs.free, self._runs.places
            found = await self._bus.recover(self.holder, streams, free, places, blameless=outage)
            self._start(tasks, found.leases, started)
        self._count({"takeovers": found.takeovers, "phantoms": found.orphaned})
        self._count({"duplicates": found.absorbed, "spoilt": found.skipped})

    def _count(self, counts: Mapping[Counter, int]) -> None:
        for counter, amount in counts.items():
            if amount:
                self._observer.count(self.holder.group, counter, amount)


def _seen(news: asyncio.Task[None]) -> None:
    """Retrieve the error of a read that nobody awaits; the next take meets the same error and backs off."""
    if not news.cancelled():
        news.exception()
