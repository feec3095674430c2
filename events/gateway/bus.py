"""`events.lease.Bus` for the agent of one range, through its gateway.

An agent uses half of the bus: it leases entries of its inbox, settles them, publishes to its outbox, notes cancelled
transfers and beats. What it does not use is refused here (`BusRefused`), and does not exist in the protocol.

The gateway tells when the inbox has something new. Without such news, a take that found nothing is not sent again
before `IDLE_SECONDS` have passed: an idle agent costs one small request a second for each group.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn, Self, TypeVar

import msgspec

from events.bus import BusRefused, Outcome, Post, Record, RecordWrite, Tailed
from events.codec import Unencodable, encode
from events.envelope import Envelope
from events.gateway import protocol
from events.gateway.link import GatewayAddress, Link
from events.gateway.protocol import CancelledNote, HeldLease, Leased, RangeMessage, Request
from events.lease import Counted, DeadLetterReason, GroupStatus, Holder, Lease, Recovered, SingleFlightLock, Taken
from events.malformed import MALFORMED
from events.messages import AgentStarted, ImagesChanged
from events.streams import Streams

#: A take that found nothing is repeated after so long without news, or when the next deferred entry is due.
IDLE_SECONDS = 2.0
#: More of an entry that is given up is not sent back.
_LETTER_BYTES = 48 * 1024
_MARK_SECONDS = 86400.0

T = TypeVar("T")


@dataclass(slots=True)
class _Idle:
    """What one owner knows of its inbox: the count of notifications when it last found nothing, and when that was."""

    news: int = -1
    until: float = float("-inf")


class GatewayBus:
    """The bus of one range's agent. Open it with `async with GatewayBus.open(url) as bus`."""

    def __init__(self, address: GatewayAddress, *, streams: Streams, timeout_seconds: float) -> None:
        self._range_id = address.range_id
        self._streams = streams
        self._inbox = streams.inbox(address.range_id)
        self._link = Link(address, timeout_seconds=timeout_seconds, news=self._heard)
        self._count = 0
        self._changed = asyncio.Event()
        self._idle: dict[str, _Idle] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, streams: Streams | None = None, timeout_seconds: float = 5.0
    ) -> AsyncIterator[Self]:
        """The bus behind `gateway://RANGE:SECRET@HOST:PORT`; leaving closes the connection. Raises BusRefused."""
        bus = cls(GatewayAddress.parse(url), streams=streams or Streams(), timeout_seconds=timeout_seconds)
        async with bus._link:
            yield bus

    # ---- publishing and records ----

    async def publish(self, stream: str, *envelopes: Envelope) -> None:
        for envelope in envelopes:
            await self.commit(Outcome(posts=(Post(stream, envelope),)))

    async def commit(self, outcome: Outcome) -> None:
        if outcome.posts or outcome.records or outcome.index:
            messages, notes = self._spell(outcome)
            await self._link.call(protocol.Commit(messages=messages, notes=notes))

    async def load(self, key: str) -> Record | None:
        return (await self.load_many([key]))[0]

    async def load_many(self, keys: Sequence[str]) -> list[Record | None]:
        found: list[Record | None] = []
        for start in range(0, len(keys), 64):
            transfers = tuple(self._transfer_of(key) for key in keys[start : start + 64])
            marked = await self._ask(protocol.Marked(transfer_ids=transfers), list[bool])
            found += [Record(b"1", 1) if one else None for one in marked]
        return found

    async def beat(self, key: str, value: bytes, expires_seconds: float) -> None:
        self._own_heart(key)
        await self._link.call(protocol.Beat(value=value, expires_seconds=expires_seconds))

    async def beats(self, keys: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for key in keys:
            self._own_heart(key)
            found.append(await self._ask_beat())
        return found

    # ---- leases ----

    async def take(self, holder: Holder, streams: Sequence[str], count: int) -> Taken:
        self._own_inbox(streams)
        idle = self._idle.setdefault(holder.owner, _Idle())
        clock = asyncio.get_running_loop().time
        left = idle.until - clock() if idle.news == self._count else 0.0
        if count < 1 or left > 0:
            return Taken(due_seconds=max(left, 0.0))
        heard = self._count
        request = protocol.Take(holder=_holder(holder), count=min(count, 64))
        found = await self._ask(request, Leased)
        if not found.entries and not found.absorbed:
            due = IDLE_SECONDS if found.due_seconds is None else min(found.due_seconds, IDLE_SECONDS)
            idle.news, idle.until = heard, clock() + due
        leases = self._leases(holder, found)
        return Taken(leases, found.absorbed, skipped=found.skipped, due_seconds=found.due_seconds)

    async def wait(self, holder: Holder, streams: Sequence[str], seconds: float) -> None:
        self._own_inbox(streams)
        idle = self._idle.setdefault(holder.owner, _Idle())
        if idle.news != self._count:
            return
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def recover(
        self,
        holder: Holder,
        streams: Sequence[str],
        count: int,
        held: Sequence[tuple[str, str]],
        *,
        blameless: bool = False,
    ) -> Recovered:
        self._own_inbox(streams)
        if count < 1:
            return Recovered()
        entries = tuple(entry_id for _, entry_id in held)
        request = protocol.Recover(holder=_holder(holder), count=min(count, 64), held=entries, blameless=blameless)
        found = await self._ask(request, Leased)
        leases = self._leases(holder, found)
        return Recovered(leases, found.absorbed, found.takeovers, found.orphaned, skipped=found.skipped)

    async def introduce(self, holder: Holder, streams: Sequence[str], idle_seconds: float) -> int:
        self._own_inbox(streams)
        return await self._ask(protocol.Introduce(holder=_holder(holder), idle_seconds=idle_seconds), int)

    async def acquire(self, lease: Lease, single_flight: SingleFlightLock) -> bool:
        self._own_inbox([single_flight.home])
        free = await self._ask(protocol.Acquire(lease=_held(lease), key=single_flight.key), bool)
        if not free:
            self._heard()
        return free

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        lost: list[Lease] = []
        for start in range(0, len(renewals), 64):
            part = renewals[start : start + 64]
            leases = tuple((_held(lease), None if news is None else self._message(news)) for lease, news in part)
            answer = await self._ask(protocol.Renew(leases=leases), list[int])
            lost += [part[place][0] for place in answer if 0 <= place < len(part)]
        return lost

    async def finish(self, lease: Lease, outcome: Outcome) -> bool:
        messages, notes = self._spell(outcome)
        first = await self._ask(protocol.Finish(lease=_held(lease), messages=messages, notes=notes), bool)
        self._heard()  # an entry that waited for this one's key is due now
        return first

    async def dead_letter(self, lease: Lease, letter: DeadLetterReason, outcome: Outcome) -> bool:
        messages, notes = self._spell(outcome)
        request = protocol.DeadLetter(
            lease=_held(lease),
            code=letter.code[:128],
            reason=letter.reason[:4096],
            time=letter.time,
            flat=_worth_keeping(lease),
            messages=messages,
            notes=notes,
        )
        first = await self._ask(request, bool)
        self._heard()
        return first

    async def defer(self, lease: Lease, seconds: float, counted: Counted) -> None:
        await self._link.call(protocol.Defer(lease=_held(lease), seconds=seconds, counted=counted))
        self._heard()

    async def release(self, leases: Sequence[Lease]) -> None:
        for start in range(0, len(leases), 64):
            held = tuple(_held(lease) for lease in leases[start : start + 64])
            await self._link.call(protocol.Release(leases=held))
        self._heard()

    async def trim(self, stream: str, keep_seconds: float) -> int:
        self._own_inbox([stream])
        return await self._ask(protocol.Trim(keep_seconds=keep_seconds), int)

    # ---- what an agent does not use ----

    async def members(self, key: str, *, low: float = float("-inf"), high: float = float("inf")) -> list[str]:
        _not_for_a_range("sorted sets")

    async def discover(self, pattern: str) -> list[str]:
        _not_for_a_range("the names of streams")

    async def tail(
        self, streams: Sequence[str], *, after: str | Mapping[str, str] = "$", follow: bool = True
    ) -> AsyncGenerator[Tailed]:
        _not_for_a_range("streams outside any group")
        yield  # a generator, as the port has it

    async def groups(self, streams: Sequence[str], entries: int = 100) -> list[GroupStatus]:
        _not_for_a_range("groups")

    async def revisions(self, keys: Sequence[str]) -> list[int]:
        _not_for_a_range("revisions")

    async def lengths(self, streams: Sequence[str]) -> list[int]:
        _not_for_a_range("lengths")

    async def weights(self, streams: Sequence[str]) -> list[int]:
        _not_for_a_range("lengths")

    async def redrive(self, dead_stream: str, letter_id: str) -> bool:
        _not_for_a_range("dead letters")

    async def drop(self, dead_stream: str, letter_id: str) -> bool:
        _not_for_a_range("dead letters")

    # ---- inside ----

    def _heard(self) -> None:
        self._count += 1
        self._changed.set()

    async def _ask_beat(self) -> bytes | None:
        value = await self._link.call(protocol.LastBeat())
        try:
            found: bytes | None = msgspec.msgpack.decode(value, type=bytes | None)
        except MALFORMED as problem:
            raise BusRefused(f"the gateway's answer cannot be read: {problem}") from problem
        return found

    async def _ask(self, request: Request, kind: type[T]) -> T:
        value = await self._link.call(request)
        try:
            return msgspec.msgpack.decode(value, type=kind)
        except MALFORMED as problem:
            raise BusRefused(f"the gateway's answer cannot be read: {problem}") from problem

    def _leases(self, holder: Holder, found: Leased) -> list[Lease]:
        leases = []
        for entry in found.entries:
            fields = dict(zip(entry.flat[::2], entry.flat[1::2], strict=False))
            leases.append(
                Lease(
                    stream=self._inbox,
                    entry_id=entry.entry_id,
                    holder=holder,
                    deliveries=entry.deliveries,
                    fields=fields,
                    failed=entry.failed,
                    crashed=entry.crashed,
                    waited=entry.waited,
                    flat=entry.flat if 2 * len(fields) != len(entry.flat) else (),
                )
            )
        return leases

    def _spell(self, outcome: Outcome) -> tuple[tuple[RangeMessage, ...], tuple[CancelledNote, ...]]:
        if outcome.index:
            _not_for_a_range("sorted sets")
        messages = tuple(self._message(post) for post in outcome.posts)
        return messages, tuple(self._note(record) for record in outcome.records)

    def _message(self, post: Post) -> RangeMessage:
        if post.due is not None:
            _not_for_a_range("timers")
        listing = isinstance(post.envelope.message, AgentStarted | ImagesChanged)
        try:
            fields = encode(post.envelope, limit_bytes=protocol.LIST_ENTRY_BYTES if listing else protocol.ENTRY_BYTES)
        except Unencodable as problem:
            raise BusRefused(str(problem)) from problem
        if post.stream == self._streams.outbox(self._range_id):
            return RangeMessage("outbox", fields)
        if post.stream == self._streams.range_progress(self._range_id):
            return RangeMessage("progress", fields)
        _not_for_a_range(f"the stream {post.stream}")

    def _note(self, record: RecordWrite) -> CancelledNote:
        if record.value is None or record.expected is not None:
            _not_for_a_range("records with revisions")
        return CancelledNote(self._transfer_of(record.key), record.expires_seconds or _MARK_SECONDS)

    def _transfer_of(self, key: str) -> str:
        head = self._streams.cancelled(self._range_id, "")
        if not key.startswith(head):
            _not_for_a_range(f"the record {key}")
        return key.removeprefix(head)

    def _own_inbox(self, streams: Sequence[str]) -> None:
        if list(streams) != [self._inbox]:
            _not_for_a_range("streams other than its inbox")

    def _own_heart(self, key: str) -> None:
        if key != self._streams.alive(self._range_id):
            _not_for_a_range(f"the heartbeat {key}")


def _not_for_a_range(what: str) -> NoReturn:
    raise BusRefused(f"the agent of a range cannot ask its gateway for {what}")


def _holder(holder: Holder) -> protocol.Holder:
    if holder.group not in ("agent", "agent-cancel"):
        _not_for_a_range(f"the group {holder.group}")
    group: protocol.Group = "agent" if holder.group == "agent" else "agent-cancel"
    return protocol.Holder(group, holder.owner, holder.lease_seconds)


def _held(lease: Lease) -> HeldLease:
    return HeldLease(
        holder=_holder(lease.holder),
        entry_id=lease.entry_id,
        deliveries=lease.deliveries,
        source=lease.fields.get(b"source", b"")[:512],
        event=lease.fields.get(b"id", b"")[:512],
        key=None if lease.single_flight is None else lease.single_flight.key,
        failed=lease.failed,
        crashed=lease.crashed,
    )


def _worth_keeping(lease: Lease) -> tuple[bytes, ...]:
    """The entry's names and values, or of a large one those that say which it was."""
    flat = tuple(lease.flat) or tuple(part for pair in lease.fields.items() for part in pair)
    if len(flat) <= 200 and sum(map(len, flat)) <= _LETTER_BYTES:
        return flat
    names = (b"id", b"type", b"source", b"subject", b"time")
    return tuple(part for name in names for part in (name, lease.fields.get(name, b"")[:512]))
