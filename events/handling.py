"""What happens to one leased entry: decode, board, handle, settle.

cannot be decoded, too large, unknown type or version      → dead letter
no handler for the type                                    → acknowledged
another entry with the same key is being handled           → put aside until that one ends
handler returns                                            → outcome committed with the acknowledgement
handler raises Permanent / too many failures or crashes    → dead letter, with what `give_up` says
handler raises Unavailable / Redis away                    → put aside, not counted
handler raises anything else, or ends in a cancellation
that nobody asked for; the key cannot be told              → put aside, counted
what `give_up` says cannot be said                         → dead letter without it
even the dead letter is refused                            → put aside, not counted
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from events.backoff import backoff
from events.bus import (
    NOTHING,
    BusAway,
    BusRefused,
    Delivery,
    Handler,
    HandlingError,
    LeaseLost,
    Outcome,
    Permanent,
    Post,
    RecordConflict,
    Subscription,
    Transient,
    Unavailable,
)
from events.codec import ENTRY_LIMIT_BYTES, Undecodable, Unencodable, decode, encode, format_time
from events.envelope import Envelope
from events.lease import Bus, Flight, Letter
from events.messages import Failure, TransferProgress
from events.observer import Counter, Observer
from events.runs import Run

#: A run is repeated at once this often when records changed under it, then put aside.
CONFLICTS = 25
#: About how many entries a progress stream keeps.
PROGRESS_KEPT = 10_000

Answer = TypeVar("Answer")


class Handling:
    """The policy of one worker. `home` is the stream that flight locks are kept under."""

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

    async def handle(self, run: Run) -> None:
        """Ends when the entry is settled or put aside. Raises LeaseLost; is cancelled when the lease gets lost.

        No entry ends its worker: what goes wrong beside the handler puts the entry aside. Raises BusRefused when Redis
        refuses even that.
        """
        try:
            await self._handle(run)
        except LeaseLost:
            raise
        except Exception:  # noqa: BLE001  this loop outlives a key, a `give_up` or a dead-letter stream that is wrong
            self._count("waited")
            await self._put_aside(run, counted=False)

    async def _handle(self, run: Run) -> None:
        try:
            envelope = decode(run.lease.fields, limit_bytes=self._limit_bytes)
        except Undecodable as error:
            await self._bury(run, Failure(code=error.code, message=str(error)), None)
            return
        handler = self._sub.handlers.get(type(envelope.message))
        if handler is None:
            await self._finish(run, NOTHING)
        elif run.lease.crashed >= self._sub.crashes:
            message = f"{run.lease.crashed} workers vanished while they handled this entry; look for what kills them"
            await self._bury(run, Failure(code="crashed", message=message), envelope)
        elif await self._board(run, envelope):
            run.correlation_id = envelope.correlation_id
            await self._attempt(run, envelope, handler)

    async def _board(self, run: Run, envelope: Envelope) -> bool:
        try:
            key = self._sub.key(envelope)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  this loop outlives any key's mistake
            await self._failed(run, envelope, error)
            return False
        if key is None:
            return True
        flight = Flight(self._home(), key)
        if not await self._insist(lambda: self._bus.board(run.lease, flight)):
            return False
        run.lease = run.lease.boarded(flight)
        return True

    async def _attempt(self, run: Run, envelope: Envelope, handler: Handler) -> None:
        lease = run.lease
        delivery = Delivery(envelope, lease.stream, lease.entry_id, lease.failed + 1, run.report)
        for _ in range(CONFLICTS):
            try:
                await self._finish(run, await self._timed(handler, delivery))
                return
            except RecordConflict:
                self._count("conflicts")
            except LeaseLost:
                raise
            except (Unavailable, BusAway):
                self._count("waited")
                await self._put_aside(run, counted=False)
                return
            except Permanent as error:
                await self._bury(run, failure_of(error), envelope)
                return
            except Exception as error:  # noqa: BLE001  this loop outlives any handler's mistake
                await self._failed(run, envelope, error)
                return
        await self._put_aside(run, counted=False)

    async def _timed(self, handler: Handler, delivery: Delivery) -> Outcome:
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

    async def _failed(self, run: Run, envelope: Envelope, error: BaseException) -> None:
        self._count("failed")
        if run.lease.failed + 1 >= self._sub.attempts:
            run.lease = replace(run.lease, failed=run.lease.failed + 1)
            await self._bury(run, failure_of(error), envelope)
        else:
            await self._put_aside(run, counted=True)

    # ---- settling: repeated until Redis answers or the lease is lost ----

    async def _finish(self, run: Run, outcome: Outcome) -> None:
        news = self.news(run)
        if news is not None:
            outcome = replace(outcome, posts=(*outcome.posts, news))
        first = await self._insist(lambda: self._bus.finish(run.lease, outcome))
        self._count("handled" if first else "duplicates")

    async def _put_aside(self, run: Run, *, counted: bool) -> None:
        tries = (run.lease.failed if counted else run.lease.waited) + 1
        limit = self._sub.backoff_limit_seconds if counted else self._sub.unavailable_limit_seconds
        seconds = backoff(tries, base_seconds=self._sub.backoff_seconds, limit_seconds=limit)
        await self._insist(lambda: self._bus.defer(run.lease, seconds, "failed" if counted else "waited"))

    async def _bury(self, run: Run, failure: Failure, envelope: Envelope | None) -> None:
        try:
            await self._bury_with(run, failure, lambda: self._give_up(envelope, failure))
        except (LeaseLost, RecordConflict):
            raise
        except Exception as error:  # noqa: BLE001  this loop outlives any mistake of `give_up`; the letter tells it
            untold = f"{failure.message} (those who wait could not be told: {describe(error)})"
            await self._bury_with(run, msgspec.structs.replace(failure, message=untold), lambda: NOTHING)

    async def _bury_with(self, run: Run, failure: Failure, give_up: Callable[[], Outcome]) -> None:
        letter = Letter(self._sub.dead_stream, failure.code, failure.message, format_time(datetime.now(UTC)))
        for tries in range(1, CONFLICTS + 1):
            try:
                first = await self._insist(lambda: self._bus.bury(run.lease, letter, give_up()))
            except RecordConflict:
                if tries == CONFLICTS:
                    raise
            else:
                self._count("dead_letters" if first else "duplicates")
                return

    def _give_up(self, envelope: Envelope | None, failure: Failure) -> Outcome:
        try:
            return NOTHING if envelope is None else self._sub.give_up(envelope, failure)
        except asyncio.CancelledError as error:  # nothing is awaited in there, so it is none of the worker's
            raise Transient("cancelled from within") from error

    async def _insist(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Every call made here may be repeated. Ends by its answer, or by cancellation when the lease runs out."""
        tries = 1
        while True:
            try:
                return await call()
            except BusAway:
                await asyncio.sleep(backoff(tries, base_seconds=0.05, limit_seconds=1.0))
                tries += 1

    def news(self, run: Run) -> Post | None:
        """The run's latest progress, if it was not told yet; `run.told` is for whoever got it told to set."""
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

    def _say(self, run: Run, progress: TransferProgress) -> Envelope:
        return Envelope(
            message=progress, source=self._source, subject=progress.reference, correlation_id=run.correlation_id
        )

    def _count(self, counter: Counter) -> None:
        self._observer.count(self._sub.group, counter)


def failure_of(error: BaseException) -> Failure:
    """What a handler's error says, for the dead letter and for whoever waits."""
    if isinstance(error, HandlingError):
        code = error.code
    else:
        code = "refused" if isinstance(error, BusRefused) else "unexpected"
    return Failure(code=code, message=describe(error))


def describe(error: BaseException) -> str:
    """An error's text, or its kind where it has none."""
    return str(error) or type(error).__name__
