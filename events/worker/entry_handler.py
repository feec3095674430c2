"""Handling of one leased entry: decode, acquire its single-flight lock, run the handler, settle the outcome.

cannot be decoded, too large, unknown type or version      → dead letter
no handler for the type; `accept` says no                  → acknowledged
another entry with the same key is being handled           → deferred until that one ends
handler returns                                            → outcome committed with the acknowledgement
handler raises Permanent / too many failures or crashes    → dead letter, with what `give_up` says
handler raises Unavailable / Redis away                    → deferred, not counted
handler raises anything else, or ends in a cancellation
that nobody asked for; the key cannot be told              → deferred, counted
what `give_up` says cannot be said                         → dead letter without it
even the dead letter is refused                            → deferred, not counted
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from events.authority import letters_of
from events.bus import (
    NOTHING,
    BusRefused,
    BusUnavailable,
    Delivery,
    HandlingError,
    LeaseLost,
    Outcome,
    Post,
    RecordConflict,
    Transient,
    Unavailable,
)
from events.codec import ENTRY_LIMIT_BYTES, NOT_ALLOWED, Undecodable, Unencodable, decode, encode, format_time
from events.envelope import Envelope
from events.lease import Bus, DeadLetterReason, Lease, SingleFlightLock
from events.messages import Failure, TransferProgress
from events.subscription import Handler, Registration, Subscription
from events.worker.backoff import backoff
from events.worker.in_flight import InFlightEntry
from events.worker.observer import Counter, Observer
from events.worker.refusals import Refusals

#: A run is repeated at once this often when records changed under it, then deferred.
CONFLICTS = 25
#: About how many letters are kept of what one range said.
REFUSED_KEPT = 100
#: About how many entries a progress stream keeps.
PROGRESS_KEPT = 10_000

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Work:
    """One decoded entry and the registration of its type."""

    registered: Registration[Any]
    delivery: Delivery[Any]

    def give_up(self, failure: Failure) -> Outcome:
        """The outcome that is committed together with the dead letter."""
        try:
            return self.registered.given_up(self.delivery, failure)
        except asyncio.CancelledError as error:  # nothing is awaited in there, so it is none of the worker's
            raise Transient("cancelled from within") from error


class EntryHandler:
    """Handles the entries of one worker. `home` is the stream under which single-flight locks are kept."""

    def __init__(
        self,
        bus: Bus,
        subscription: Subscription,
        *,
        source: str,
        home: Callable[[], str],
        observer: Observer,
        limit_bytes: int = ENTRY_LIMIT_BYTES,
    ) -> None:
        self._bus = bus
        self._sub = subscription
        self._source = source
        self._home = home
        self._observer = observer
        self._limit_bytes = limit_bytes
        self._refusals = Refusals()

    async def handle(self, run: InFlightEntry) -> None:
        """Ends when the entry is settled or deferred. Raises LeaseLost; is cancelled when the lease gets lost.

        No entry ends its worker: what goes wrong beside the handler defers the entry. Raises BusRefused when Redis
        refuses even that.
        """
        try:
            await self._handle(run)
        except LeaseLost:
            raise
        except Exception:  # noqa: BLE001  this loop outlives a key, a `give_up` or a dead-letter stream that is wrong
            self._count("waited")
            await self._defer(run, counted=False)

    async def _handle(self, run: InFlightEntry) -> None:
        try:
            envelope = decode(run.lease.fields, stream=run.lease.stream, limit_bytes=self._limit_bytes)
        except Undecodable as error:
            if error.code == NOT_ALLOWED:
                self._count("refused")
            await self._dead_letter(run, Failure(code=error.code, message=str(error)), lambda failure: NOTHING)
            return
        registered = self._sub.handlers.find(type(envelope.message))
        if registered is None:
            await self._finish(run, NOTHING)
            return
        lease = run.lease
        work = Work(registered, Delivery(envelope, lease.stream, lease.entry_id, lease.failed + 1, run.report))
        if lease.crashed >= self._sub.crashes:
            message = f"{lease.crashed} workers vanished while they handled this entry; look for what kills them"
            await self._dead_letter(run, Failure(code="crashed", message=message), work.give_up)
        elif await self._accepted(run, work) and await self._acquire(run, work):
            run.correlation_id = envelope.correlation_id
            await self._attempt(run, work)

    async def _accepted(self, run: InFlightEntry, work: Work) -> bool:
        accept = work.registered.accept
        try:
            if accept is None or await accept(work.delivery):
                return True
        except Exception as error:  # noqa: BLE001  this loop outlives any mistake of `accept`
            await self._not_handled(run, work, error)
            return False
        self._count("refused")
        await self._finish(run, NOTHING)
        return False

    async def _acquire(self, run: InFlightEntry, work: Work) -> bool:
        try:
            key = work.registered.key_of(work.delivery)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  this loop outlives any key's mistake
            await self._failed(run, work, error)
            return False
        if key is None:
            return True
        single_flight = SingleFlightLock(self._home(), key)
        if not await self._insist(lambda: self._bus.acquire(run.lease, single_flight)):
            run.deferred = True
            return False
        run.lease = run.lease.acquired(single_flight)
        return True

    async def _attempt(self, run: InFlightEntry, work: Work) -> None:
        for _ in range(CONFLICTS):
            try:
                await self._finish(run, await self._timed(work.registered.handler, work.delivery))
                return
            except RecordConflict:
                self._count("conflicts")
            except LeaseLost:
                raise
            except Exception as error:  # noqa: BLE001  this loop outlives any handler's mistake
                await self._not_handled(run, work, error)
                return
        await self._defer(run, counted=False)

    async def _timed(self, handler: Handler[Any], delivery: Delivery[Any]) -> Outcome:
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            return await handler(delivery) or NOTHING
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Transient("the handler was cancelled from within: by something it waited for") from error
        finally:
            self._observer.took(self._sub.group, clock() - started)

    async def _not_handled(self, run: InFlightEntry, work: Work, error: Exception) -> None:
        if isinstance(error, HandlingError) and error.final:
            await self._dead_letter(run, failure_of(error), work.give_up)
        elif isinstance(error, Unavailable | BusUnavailable):
            self._count("waited")
            await self._defer(run, counted=False)
        else:
            await self._failed(run, work, error)

    async def _failed(self, run: InFlightEntry, work: Work, error: BaseException) -> None:
        self._count("failed")
        if run.lease.failed + 1 >= self._sub.attempts:
            run.lease = replace(run.lease, failed=run.lease.failed + 1)
            await self._dead_letter(run, failure_of(error), work.give_up)
        else:
            await self._defer(run, counted=True)

    # ---- settling: repeated until Redis answers or the lease is lost ----

    async def _finish(self, run: InFlightEntry, outcome: Outcome) -> None:
        news = self.news(run)
        if news is not None:
            outcome = replace(outcome, posts=(*outcome.posts, news))
        first = await self._insist(lambda: self._bus.finish(run.lease, outcome))
        self._count("handled" if first else "duplicates")

    async def _defer(self, run: InFlightEntry, *, counted: bool) -> None:
        tries = (run.lease.failed if counted else run.lease.waited) + 1
        limit = self._sub.backoff_limit_seconds if counted else self._sub.unavailable_limit_seconds
        seconds = backoff(tries, base_seconds=self._sub.backoff_seconds, limit_seconds=limit)
        await self._insist(lambda: self._bus.defer(run.lease, seconds, "failed" if counted else "waited"))
        run.deferred = True

    async def _dead_letter(self, run: InFlightEntry, failure: Failure, give_up: Callable[[Failure], Outcome]) -> None:
        try:
            await self._dead_letter_with(run, failure, lambda: give_up(failure))
        except (LeaseLost, RecordConflict):
            raise
        except Exception as error:  # noqa: BLE001  this loop outlives any mistake of `give_up`; the letter tells it
            untold = f"{failure.message} (those who wait could not be told: {describe(error)})"
            await self._dead_letter_with(run, msgspec.structs.replace(failure, message=untold), lambda: NOTHING)

    async def _dead_letter_with(self, run: InFlightEntry, failure: Failure, give_up: Callable[[], Outcome]) -> None:
        letter = self._letter(run.lease, failure)
        for tries in range(1, CONFLICTS + 1):
            try:
                first = await self._insist(lambda: self._bus.dead_letter(run.lease, letter, give_up()))
            except RecordConflict:
                if tries == CONFLICTS:
                    raise
            else:
                self._count("dead_letters" if first else "duplicates")
                return

    def _letter(self, lease: Lease, failure: Failure) -> DeadLetterReason:
        """The reason of a dead letter.

        Those of a range are kept apart, and only the last ones: it can publish a million.
        """
        time, refused = format_time(datetime.now(UTC)), letters_of(lease.stream)
        if refused is None:
            return DeadLetterReason(self._sub.dead_stream, failure.code, failure.message, time)
        self._refusals.note(lease.stream, failure)
        return DeadLetterReason(refused, failure.code, failure.message, time, keep=REFUSED_KEPT)

    async def _insist(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat a call of the bus until it is answered, or cancelled when the lease runs out.

        Every call made here may be repeated.
        """
        tries = 1
        while True:
            try:
                return await call()
            except BusUnavailable:
                await asyncio.sleep(backoff(tries, base_seconds=0.05, limit_seconds=1.0))
                tries += 1

    def news(self, run: InFlightEntry) -> Post | None:
        """The latest progress that was not sent yet; `run.told` is for the sender to set."""
        progress = run.progress
        if progress is None or progress is run.told or self._sub.progress_stream is None:
            return None
        post = Post(self._sub.progress_stream, self._say(run, progress), keep=PROGRESS_KEPT)
        try:
            encode(post.envelope, limit_bytes=self._limit_bytes)
        except Unencodable:
            run.told = progress  # a note that cannot be said must not cost the lease, nor the outcome
            return None
        return post

    def _say(self, run: InFlightEntry, progress: TransferProgress) -> Envelope:
        return Envelope(
            message=progress, source=self._source, subject=progress.reference, correlation_id=run.correlation_id
        )

    def _count(self, counter: Counter) -> None:
        self._observer.count(self._sub.group, counter)


def failure_of(error: BaseException) -> Failure:
    """A handler's error as a Failure, for the dead letter and for clients that wait."""
    if isinstance(error, HandlingError):
        code = error.code
    else:
        code = "refused" if isinstance(error, BusRefused) else "unexpected"
    return Failure(code=code, message=describe(error))


def describe(error: BaseException) -> str:
    """An error's text; its class name where it has no text."""
    return str(error) or type(error).__name__
