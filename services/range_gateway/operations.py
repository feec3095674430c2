"""Operations of an agent on the bus, restricted to the streams and keys of its own range."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from events.bus import BusRefused, BusUnavailable, Outcome, Post, RecordWrite
from events.envelope import Envelope
from events.gateway import protocol
from events.gateway.protocol import CancelledNote, HeldLease, Leased, RangeMessage, Request, TakenEntry
from events.lease import Bus, DeadLetterReason, Holder, Lease, SingleFlightLock
from events.messages import AgentStarted, ImagesChanged
from events.streams import Streams
from services.core.ranges.limits import Limit, RangeAccount
from services.range_gateway.outbox_quota import OutboxQuota
from services.range_gateway.range_messages import read_message

#: An agent has eight slots; so many entries at most are given to it at a time.
TAKEN_AT_ONCE = 16
#: About how many entries of progress a range keeps.
PROGRESS_KEPT = 200
#: What Redis may take for one request.
REQUEST_SECONDS = 20.0


class OnLimit(Protocol):
    """Callback that counts a limit which a range exceeded."""

    def __call__(self, limit: Limit, /, *, cut: bool = False) -> None: ...


class Operations:
    """The requests of one range."""

    def __init__(
        self,
        bus: Bus,
        *,
        streams: Streams,
        range_id: str,
        account: RangeAccount,
        quota: OutboxQuota,
        met: OnLimit,
        clock: Callable[[], float],
        host: str = "",
    ) -> None:
        self._host = host
        self._bus = bus
        self._streams = streams
        self._range_id = range_id
        self._inbox = streams.inbox(range_id)
        self._account = account
        self._quota = quota
        self._met = met
        self._clock = clock

    async def carry_out(self, request: Request) -> object:
        """Carry out one request and return the value of its reply. Raises BusError, TimeoutError."""
        value: object = None
        async with asyncio.timeout(REQUEST_SECONDS):
            match request:
                case protocol.Take() | protocol.Recover() | protocol.Introduce():
                    value = await self._hold(request)
                case protocol.Acquire() | protocol.Renew() | protocol.Defer() | protocol.Release():
                    value = await self._keep(request)
                case protocol.Finish() | protocol.DeadLetter() | protocol.Commit():
                    value = await self._settle(request)
                case protocol.Marked():
                    keys = [self._streams.cancelled(self._range_id, one) for one in request.transfer_ids]
                    value = [record is not None for record in await self._bus.load_many(keys)]
                case protocol.Beat():
                    await self._bus.beat(self._streams.alive(self._range_id), request.value, request.expires_seconds)
                case protocol.LastBeat():
                    (value,) = await self._bus.beats([self._streams.alive(self._range_id)])
                case protocol.Trim():
                    value = await self._bus.trim(self._inbox, request.keep_seconds)
        return value

    # ---- leases ----

    async def _hold(self, request: protocol.Take | protocol.Recover | protocol.Introduce) -> object:
        if not self._account.owner(request.holder.owner, self._clock()):
            self._met("owners")
            raise BusUnavailable("too many workers of this range held leases lately: one worker keeps its name")
        holder = _holder(request.holder)
        if isinstance(request, protocol.Introduce):
            return await self._bus.introduce(holder, [self._inbox], request.idle_seconds)
        count = min(request.count, TAKEN_AT_ONCE)
        if isinstance(request, protocol.Take):
            taken = await self._bus.take(holder, [self._inbox], count)
            entries = _entries(taken.leases)
            return Leased(entries, taken.absorbed, skipped=taken.skipped, due_seconds=taken.due_seconds)
        held = [(self._inbox, entry_id) for entry_id in request.held]
        found = await self._bus.recover(holder, [self._inbox], count, held, blameless=request.blameless)
        return Leased(_entries(found.leases), found.absorbed, found.takeovers, found.orphaned, found.skipped)

    async def _keep(self, request: protocol.Acquire | protocol.Renew | protocol.Defer | protocol.Release) -> object:
        match request:
            case protocol.Acquire():
                return await self._bus.acquire(self._lease(request.lease), SingleFlightLock(self._inbox, request.key))
            case protocol.Renew():
                renewals = [(self._lease(held), self._progress(message)) for held, message in request.leases]
                lost = await self._bus.renew(renewals)
                return [place for place, (lease, _) in enumerate(renewals) if lease in lost]
            case protocol.Defer():
                await self._bus.defer(self._lease(request.lease), request.seconds, request.counted)
            case protocol.Release():
                await self._bus.release([self._lease(held) for held in request.leases])
        return None

    def _lease(self, held: HeldLease, flat: Sequence[bytes] = ()) -> Lease:
        fields = dict(zip(flat[::2], flat[1::2], strict=False)) or {b"source": held.source, b"id": held.event}
        return Lease(
            stream=self._inbox,
            entry_id=held.entry_id,
            holder=_holder(held.holder),
            deliveries=held.deliveries,
            fields=fields,
            failed=held.failed,
            crashed=held.crashed,
            single_flight=None if held.key is None else SingleFlightLock(self._inbox, held.key),
        )

    # ---- messages ----

    async def _settle(self, request: protocol.Finish | protocol.DeadLetter | protocol.Commit) -> object:
        outcome = await self._outcome(request.messages, request.notes)
        match request:
            case protocol.Commit():
                await self._bus.commit(outcome)
            case protocol.Finish():
                return await self._bus.finish(self._lease(request.lease), outcome)
            case protocol.DeadLetter():
                letter = DeadLetterReason(
                    self._streams.range_dead(self._range_id), request.code, request.reason, request.time
                )
                return await self._bus.dead_letter(self._lease(request.lease, request.flat), letter, outcome)
        return None

    async def _outcome(self, messages: Sequence[RangeMessage], notes: Sequence[CancelledNote]) -> Outcome:
        """The outcome of the messages, within the range's budgets. Raises BusRefused, BusUnavailable."""
        posts = [self._post(message) for message in messages if message.to == "outbox"]
        progress = [post for message in messages if message.to == "progress" and (post := self._progress(message))]
        lists = sum(isinstance(post.envelope.message, AgentStarted | ImagesChanged) for post in posts)
        now = self._clock()
        if lists and (wait := self._account.listing(now)):
            raise self._over("lists", wait)
        if wait := self._account.messages(len(posts) + len(notes), now):
            raise self._over("messages", wait)
        if posts:
            weight = sum(_weight(message) for message in messages if message.to == "outbox")
            if not await self._quota.take(self._range_id, len(posts), weight):
                self._met("outbox")
                raise BusUnavailable("the outbox of this range is full: the services have not read it yet")
        records = tuple(
            RecordWrite(
                key=self._streams.cancelled(self._range_id, note.transfer_id),
                value=b"1",
                expires_seconds=note.expires_seconds,
            )
            for note in notes
        )
        return Outcome(posts=(*posts, *progress), records=records)

    def _over(self, limit: Limit, wait: float) -> BusUnavailable:
        self._met(limit)
        return BusUnavailable(f"this range publishes more than it may ({limit}): again in {wait:.0f} s")

    def _post(self, message: RangeMessage) -> Post:
        return Post(self._streams.outbox(self._range_id), self._read(message))

    def _read(self, message: RangeMessage) -> Envelope:
        return read_message(message, self._streams, self._range_id, self._host)

    def _progress(self, message: RangeMessage | None) -> Post | None:
        """Progress within the budget; the rest is dropped, because progress is lossy."""
        if message is None:
            return None
        if message.to != "progress":
            raise BusRefused("beside a lease only progress is met")
        envelope = self._read(message)
        if not self._account.progress(1, self._clock()):
            self._met("progress")
            return None
        return Post(self._streams.range_progress(self._range_id), envelope, keep=PROGRESS_KEPT)


def _holder(holder: protocol.Holder) -> Holder:
    return Holder(holder.group, holder.owner, holder.lease_seconds)


def _entries(leases: Sequence[Lease]) -> tuple[TakenEntry, ...]:
    return tuple(
        TakenEntry(
            lease.entry_id,
            lease.deliveries,
            lease.failed,
            lease.crashed,
            lease.waited,
            tuple(lease.flat) or tuple(part for pair in lease.fields.items() for part in pair),
        )
        for lease in leases
    )


def _weight(message: RangeMessage) -> int:
    return sum(map(len, message.fields)) + sum(map(len, message.fields.values()))
