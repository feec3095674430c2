"""The bus in memory: the guarantees of the Redis bus, for one process. Used by tests and by the embedded run.

Time is the event loop's, so that a test with a faked clock sees backoff and leases pass in an instant.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from events.bus import BusRefused, LeaseLost, Outcome, Post
from events.codec import ENTRY_LIMIT_BYTES, encode_message, entry_bytes
from events.dead_letters import check_fields, read_letter, write_letter
from events.fair_share import fair_share, is_outbox
from events.lease import (
    Counted,
    DeadLetterReason,
    GroupStatus,
    Holder,
    Lease,
    PendingEntry,
    Recovered,
    SingleFlightLock,
    Taken,
)
from events.memory.bus_client import MemoryBusClient
from events.memory.store import DEFERRED, Group, Pending, Stream, next_due, parse


class MemoryBus(MemoryBusClient):
    """The bus in dictionaries.

    `clock` is what due times are compared with; under a faked loop clock it is derived from that.
    """

    def __init__(
        self, *, limit_bytes: int = ENTRY_LIMIT_BYTES, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        super().__init__(limit_bytes=limit_bytes, clock=clock)
        self._flights: dict[tuple[str, SingleFlightLock], Lease] = {}
        self._waiting: dict[tuple[str, SingleFlightLock], list[tuple[str, str]]] = {}

    async def take(self, holder: Holder, streams: Sequence[str], count: int) -> Taken:
        taken: list[Lease] = []
        absorbed = 0
        now = self._now()

        def most(name: str) -> int:
            room = max(0, count - len(taken))
            return min(room, fair_share(count)) if is_outbox(name) else room

        for name in streams:
            stream, group = self._both(name, holder.group)
            stream.fire(now)
            for entry_id in group.due(now)[: most(name)]:
                del group.deferred[entry_id]
                absorbed += not self._accept(taken, stream, group, entry_id, holder)
        for name in streams:
            stream, group = self._both(name, holder.group)
            for entry_id, _ in stream.after(group.delivered)[: most(name)]:
                group.delivered = entry_id
                group.pending[entry_id] = Pending(holder.owner, 0, now)
                absorbed += not self._accept(taken, stream, group, entry_id, holder)
        return Taken(taken, absorbed, due_seconds=next_due((self._both(name, holder.group) for name in streams), now))

    async def wait(self, holder: Holder, streams: Sequence[str], seconds: float) -> None:
        changed = self._changed
        both = [self._both(name, holder.group) for name in streams]
        if any(stream.after(group.delivered) or group.due(self._now()) for stream, group in both):
            return
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return

    async def recover(
        self,
        holder: Holder,
        streams: Sequence[str],
        count: int,
        held: Sequence[tuple[str, str]],
        *,
        blameless: bool = False,
    ) -> Recovered:
        taken: list[Lease] = []
        takeovers = orphaned = absorbed = 0
        mine = set(held)
        for name in streams:
            stream, group = self._both(name, holder.group)
            for entry_id, line in list(group.pending.items()):
                if len(taken) >= count:
                    break
                crashed = line.owner not in (holder.owner, DEFERRED)
                if crashed and self._now() - line.renewed < group.leases.get(line.owner, holder.lease_seconds):
                    continue
                if (name, entry_id) in mine if line.owner == holder.owner else entry_id in group.deferred:
                    continue
                line.crashed += crashed and not blameless
                takeovers += crashed
                orphaned += not crashed
                absorbed += not self._accept(taken, stream, group, entry_id, holder)
        return Recovered(taken, absorbed, takeovers, orphaned)

    async def introduce(self, holder: Holder, streams: Sequence[str], idle_seconds: float) -> int:
        for name in streams:
            self._both(name, holder.group)[1].leases[holder.owner] = holder.lease_seconds
        return 0  # who has nothing is not known here

    async def acquire(self, lease: Lease, single_flight: SingleFlightLock) -> bool:
        line = self._fence(lease)
        place = (lease.holder.group, single_flight)
        other = self._flights.get(place)
        queue = self._waiting.setdefault(place, [])
        if other is None or not self._stands(other) or other.place == lease.place:
            self._flights[place] = lease
            if lease.place in queue:
                queue.remove(lease.place)
            return True
        self._defer(lease, line, self._now() + lease.holder.lease_seconds)
        if lease.place not in queue:
            queue.append(lease.place)
        return False

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        lost = []
        for lease, news in renewals:
            if not self._stands(lease) or not self._acquire_lock(lease):
                lost.append(lease)
                continue
            line = self._fence(lease)
            line.renewed = self._now()
            if news is not None:
                line.progress = encode_message(news.envelope.message)
                await self.commit(Outcome(posts=(news,)))
        return lost

    async def finish(self, lease: Lease, outcome: Outcome) -> bool:
        return self._settle(lease, outcome, "done", None)

    async def dead_letter(self, lease: Lease, letter: DeadLetterReason, outcome: Outcome) -> bool:
        return self._settle(lease, outcome, "dead", letter)

    async def defer(self, lease: Lease, seconds: float, counted: Counted) -> None:
        line = self._fence(lease)
        line.failed += counted == "failed"
        line.waited += counted == "waited"
        self._defer(lease, line, self._now() + seconds)
        self._release_lock(lease)

    async def release(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            if self._stands(lease):
                self._defer(lease, self._fence(lease), 0.0)
                self._release_lock(lease)
        self._notify()

    async def trim(self, stream: str, keep_seconds: float) -> int:
        return self._stream(stream).trim(f"{round((time.time() - keep_seconds) * 1000)}-0")

    async def groups(self, streams: Sequence[str], entries: int = 100) -> list[GroupStatus]:
        found = []
        for name in streams:
            stream = self._stream(name)
            found += [self._status(stream, group_name, entries) for group_name in stream.groups]
        return found

    async def lengths(self, streams: Sequence[str]) -> list[int]:
        return [len(self._stream(name).entries) for name in streams]

    async def weights(self, streams: Sequence[str]) -> list[int]:
        return [sum(entry_bytes(fields) for fields in self._stream(name).entries.values()) for name in streams]

    async def redrive(self, dead_stream: str, letter_id: str) -> bool:
        fields = self._stream(dead_stream).entries.get(letter_id)
        letter = read_letter(letter_id, fields) if fields else None
        if letter is None:
            return False
        if not letter.fields:
            raise BusRefused(f"{letter_id} on {dead_stream} is no dead letter that can be sent again")
        check_fields(letter)
        del self._stream(dead_stream).entries[letter_id]
        stream, group = self._both(letter.stream, letter.group)
        group.outcomes.drop(letter.identity)
        stream.add(dict(letter.fields))
        self._notify()
        return True

    async def drop(self, dead_stream: str, letter_id: str) -> bool:
        return self._stream(dead_stream).entries.pop(letter_id, None) is not None

    def forget(self) -> None:
        """Delete everything, as FLUSHALL does: streams, groups, leases, locks, records, deduplication."""
        for kept in (self._streams, self._records, self._index, self._beats, self._flights, self._waiting):
            kept.clear()
        self._notify()

    # ---- inside ----

    def _both(self, name: str, group: str) -> tuple[Stream, Group]:
        stream = self._stream(name)
        return stream, stream.group(group)

    def _accept(self, taken: list[Lease], stream: Stream, group: Group, entry_id: str, holder: Holder) -> bool:
        """Lease one entry; False if its event has an outcome already."""
        fields, line = stream.entries.get(entry_id), group.pending.get(entry_id)
        if fields is None or line is None:
            group.forget(entry_id)
            return True
        counts = (line.failed, line.crashed, line.waited)
        lease = Lease(stream.name, entry_id, holder, line.deliveries + 1, fields, *counts)
        if group.outcomes.get(lease.identity):
            group.forget(entry_id)
            return False
        line.owner, line.deliveries, line.renewed = holder.owner, line.deliveries + 1, self._now()
        taken.append(lease)
        return True

    def _stands(self, lease: Lease) -> bool:
        line = self._both(lease.stream, lease.holder.group)[1].pending.get(lease.entry_id)
        return line is not None and (line.owner, line.deliveries) == (lease.holder.owner, lease.deliveries)

    def _fence(self, lease: Lease) -> Pending:
        if not self._stands(lease):
            raise LeaseLost("another worker has the entry now, or it was flushed")
        return self._both(lease.stream, lease.holder.group)[1].pending[lease.entry_id]

    def _defer(self, lease: Lease, line: Pending, due: float) -> None:
        line.owner, line.progress = DEFERRED, None
        self._both(lease.stream, lease.holder.group)[1].deferred[lease.entry_id] = due

    def _acquire_lock(self, lease: Lease) -> bool:
        """Acquire the entry's single-flight lock, if it has a key; whether it is held now."""
        if lease.single_flight is None:
            return True
        other = self._flights.get((lease.holder.group, lease.single_flight))
        if other is not None and other.place != lease.place and self._stands(other):
            return False
        self._flights[lease.holder.group, lease.single_flight] = lease
        return True

    def _release_lock(self, lease: Lease) -> None:
        """Release a single-flight lock: the entry that waited longest is due at once."""
        place = (lease.holder.group, lease.single_flight) if lease.single_flight else None
        if place is None or self._flights.get(place) is None or self._flights[place].place != lease.place:
            return
        del self._flights[place]
        for stream, entry_id in self._waiting.get(place, [])[:1]:
            del self._waiting[place][0]
            deferred = self._both(stream, lease.holder.group)[1].deferred
            if entry_id in deferred:
                deferred[entry_id] = 0.0
        self._notify()

    def _settle(self, lease: Lease, outcome: Outcome, verdict: str, letter: DeadLetterReason | None) -> bool:
        group = self._both(lease.stream, lease.holder.group)[1]
        value = (verdict, lease.place, lease.holder.owner, lease.deliveries)
        if not self._stands(lease):
            if group.outcomes.get(lease.identity) == value:
                return True
            raise LeaseLost("another worker has the entry now, or it was flushed")
        first = group.outcomes.get(lease.identity) is None
        if first:
            self._apply(outcome, self._check(outcome))
            if letter is not None:
                self._stream(letter.stream).add(write_letter(lease, letter), letter.keep)
            group.outcomes.put(lease.identity, value, self._now())
        group.forget(lease.entry_id)
        self._release_lock(lease)
        self._notify()
        return first

    def _status(self, stream: Stream, name: str, entries: int) -> GroupStatus:
        group = stream.groups[name]
        waiting = stream.after(group.delivered)
        oldest = sorted(group.pending, key=parse)
        return GroupStatus(
            stream=stream.name,
            group=name,
            lag=len(waiting),
            pending=len(group.pending),
            deferred=len(group.deferred),
            oldest_unacked_seconds=_age(oldest[0]) if oldest else 0.0,
            oldest_undelivered_seconds=_age(waiting[0][0]) if waiting else 0.0,
            entries=[self._pending(group, entry_id) for entry_id in oldest[:entries]],
        )

    def _pending(self, group: Group, entry_id: str) -> PendingEntry:
        line = group.pending[entry_id]
        owner = None if line.owner == DEFERRED else line.owner
        idle = self._now() - line.renewed
        lease = group.leases.get(line.owner)
        left = None if lease is None else lease - idle
        return PendingEntry(entry_id, owner, idle, line.deliveries, _age(entry_id), line.progress, left)


def _age(entry_id: str) -> float:
    return max(0.0, time.time() - parse(entry_id)[0] / 1000)
