"""The bus on Redis 7.0 or newer: the scripts in `events/redis/lua` as the port `events.lease.Bus`."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from events.bus import BusRefused, LeaseLost, Outcome, Post
from events.codec import ENTRY_LIMIT_BYTES
from events.dead_letters import check_fields, read_letter, write_letter
from events.fair_share import fair_share
from events.lease import Counted, DeadLetterReason, GroupStatus, Holder, Lease, Recovered, SingleFlightLock, Taken
from events.memory.store import REMEMBER_SECONDS
from events.redis.bus_client import RedisBusClient
from events.redis.client import Commands, Reply, connect
from events.redis.confirmation import Confirmation
from events.redis.connections import Connections, connections
from events.redis.group_status import read_groups
from events.redis.preflight import Concern, preflight
from events.redis.replication import Replication, replication
from events.redis.script_arguments import (
    Words,
    field_arguments,
    lease_arguments,
    letter_arguments,
    lock_arguments,
    milliseconds,
    read_lease,
    renewal_arguments,
    settle_arguments,
)
from events.redis.scripts import Batch, Script
from events.redis.shared_read import SharedRead
from events.redis.stream_watch import FEW, Watch
from events.streams import Streams
from events.task_group import TaskGroup


class RedisBus(RedisBusClient):
    """Leases on Redis. Open it with `async with RedisBus.open(url) as bus`."""

    def __init__(
        self,
        commands: Commands,
        reads: Commands,
        *,
        streams: Streams | None = None,
        remember_seconds: float = REMEMBER_SECONDS,
        limit_bytes: int = ENTRY_LIMIT_BYTES,
        dialect: Callable[[str], str] = str,
    ) -> None:
        super().__init__(commands, reads, remember_seconds=remember_seconds, limit_bytes=limit_bytes, dialect=dialect)
        self.streams = streams or Streams()
        names = ("take", "recover", "renew", "trim", "groups", "rights", "consumers")
        self._scripts = {name: Script(name, commands, dialect) for name in names}
        self._scripts["redrive"] = Script("redrive", commands, dialect, confirmed=True)
        self._deferrals = Batch(Script("defer", commands, dialect))
        self._acquisitions = Batch(Script("acquire", commands, dialect))
        self._watches: defaultdict[str, Watch] = defaultdict(Watch)
        self._cursors: dict[tuple[str, str], str] = {}
        self._waits = SharedRead(self._with_news)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        streams: Streams | None = None,
        timeout_seconds: float = 5.0,
        remember_seconds: float = REMEMBER_SECONDS,
        limit_bytes: int = ENTRY_LIMIT_BYTES,
        name: str = "cyroid-images",
        connections: int | None = None,
        confirm_replicas: int = 0,
    ) -> AsyncIterator[Self]:
        """A bus on the server, sentinels or cluster at `url` (see `events.redis.client`); leaving closes it.

        `connections` bounds those for commands, which then wait for one another; reads that block come beside them. A
        commit counts as made once `confirm_replicas` have it. Raises BusRefused where that cannot be asked.
        """
        prefix = (streams or Streams()).prefix
        if confirm_replicas and url.startswith("redis+cluster:"):
            raise BusRefused("replicas of a cluster cannot be waited for: set CYROID_CONFIRM_REPLICAS to 0")
        confirmation = Confirmation(confirm_replicas, prefix, milliseconds(timeout_seconds / 2))
        client = connect(url, socket_timeout=timeout_seconds, name=name, prefix=prefix, connections=connections)
        commands = Commands(
            client, timeout_seconds=timeout_seconds, confirmation=confirmation if confirm_replicas else None
        )
        longer = timeout_seconds + 2.0
        reader = connect(url, socket_timeout=longer, name=f"{name}-reads", prefix=prefix)
        reads = Commands(reader, timeout_seconds=longer, attempts=1)
        bus = cls(commands, reads, streams=streams, remember_seconds=remember_seconds, limit_bytes=limit_bytes)
        async with commands, reads, bus.running():
            yield bus

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Runs the tasks that send gathered calls; leaving ends them, and the reads that still wait.

        An error of the body comes out as it is, not in a group.
        """
        failure: BaseException | None = None
        try:
            async with TaskGroup() as tasks:
                batches = (self._commits, self._looks, self._deferrals, self._acquisitions)
                senders = [tasks.create_task(batch.run()) for batch in batches]
                try:
                    yield self
                finally:
                    for sender in senders:
                        sender.cancel()
                    await self._waits.close()
        except BaseExceptionGroup as group:
            if len(group.exceptions) != 1:
                raise
            failure = group.exceptions[0]
        if failure is not None:
            raise failure

    async def preflight(self, stream: str | None = None) -> list[Concern]:
        """Problems of this Redis, and of this user's rights on `stream` (images). Raises BusUnavailable."""
        return await preflight(self._commands, self._scripts["rights"], stream or self.streams.images)

    async def connections(self) -> Connections | None:
        """Connections of this Redis; None where this user may not ask. Raises BusUnavailable."""
        return await connections(self._commands)

    async def replication(self, account: Mapping[str, Any]) -> Replication | None:
        """Replicas of this Redis, and whether each lets `account` in; None where this user may not ask.

        Raises BusUnavailable.
        """
        return await replication(self._commands, account)

    async def take(self, holder: Holder, streams: Sequence[str], count: int) -> Taken:
        if not streams:
            return Taken()
        watch = self._watches[holder.owner]
        chosen = watch.choose(streams, count, asyncio.get_running_loop().time())
        if not chosen:
            return Taken()
        each = count if len(streams) <= FEW else max(1, count // len(chosen))
        share = fair_share(count)
        words: Words = [holder.group, holder.owner, count, min(each, count), share, len(chosen), *chosen]
        found, absorbed, marks, skipped, due_ms = await self._scripts["take"](chosen[0], words)
        watch.took(chosen, [mark.decode() for mark in marks])
        leases = [read_lease(holder, reply) for reply in found]
        due_seconds = None if due_ms < 0 else due_ms / 1000
        return Taken(leases, absorbed, skipped=self._skipped.report(skipped), due_seconds=due_seconds)

    async def wait(self, holder: Holder, streams: Sequence[str], seconds: float) -> None:
        watch = self._watches[holder.owner]
        await asyncio.sleep(watch.read_pause_seconds(len(streams), asyncio.get_running_loop().time()))
        watch.news(await self._waits.wait(watch.marks(streams), seconds))

    async def _with_news(self, places: Mapping[str, str], seconds: float) -> list[str]:
        return [stream for stream, _, _ in await self._read(places, seconds, 1)]

    async def recover(
        self,
        holder: Holder,
        streams: Sequence[str],
        count: int,
        held: Sequence[tuple[str, str]],
        *,
        blameless: bool = False,
    ) -> Recovered:
        if not streams or count < 1:
            return Recovered()
        lease_ms = milliseconds(holder.lease_seconds)
        words: Words = [holder.group, holder.owner, count, lease_ms, 0 if blameless else 1, len(held)]
        for place in held:
            words += place
        words.append(len(streams))
        for stream in streams:
            words += (stream, self._cursors.get((holder.owner, stream), "-"))
        found, cursors, takeovers, orphaned, absorbed, skipped = await self._scripts["recover"](streams[0], words)
        for stream, cursor in zip(streams, cursors, strict=True):
            self._cursors[holder.owner, stream] = cursor.decode()
        leases = [read_lease(holder, reply) for reply in found]
        return Recovered(leases, absorbed, takeovers, orphaned, skipped=self._skipped.report(skipped))

    async def introduce(self, holder: Holder, streams: Sequence[str], idle_seconds: float) -> int:
        if not streams:
            return 0
        head: Words = [holder.group, holder.owner, milliseconds(holder.lease_seconds), milliseconds(idle_seconds)]
        return int(await self._scripts["consumers"](streams[0], [*head, len(streams), *streams]))

    async def acquire(self, lease: Lease, single_flight: SingleFlightLock) -> bool:
        words = [milliseconds(lease.holder.lease_seconds), *lease_arguments(lease), *lock_arguments(single_flight)]
        answer = _number(await self._acquisitions.submit(lease.stream, words))
        if answer == 0:
            raise LeaseLost("another worker has the entry now, or it was flushed")
        self._watches[lease.holder.owner].acquired(lease, single_flight, free=answer == 1)
        return answer == 1

    async def renew(self, renewals: Sequence[tuple[Lease, Post | None]]) -> list[Lease]:
        if not renewals:
            return []
        first = renewals[0][0]
        words: Words = [milliseconds(first.holder.lease_seconds), len(renewals)]
        for lease, news in renewals:
            words += renewal_arguments(lease, news, self._limit_bytes)
        replies = await self._scripts["renew"](first.stream, words)
        return [lease for (lease, _), reply in zip(renewals, replies, strict=True) if reply == 0]

    async def finish(self, lease: Lease, outcome: Outcome) -> bool:
        return await self._settled(lease, "done", outcome)

    async def dead_letter(self, lease: Lease, letter: DeadLetterReason, outcome: Outcome) -> bool:
        entry = letter_arguments(letter.stream, write_letter(lease, letter), letter.keep)
        return await self._settled(lease, "dead", outcome, entry)

    async def _settled(self, lease: Lease, verdict: str, outcome: Outcome, *letters: Words) -> bool:
        first = await self._settle(lease.stream, settle_arguments(lease, verdict, self._remember_ms), outcome, *letters)
        self._watches[lease.holder.owner].lock_released(lease.single_flight)
        return first

    async def defer(self, lease: Lease, seconds: float, counted: Counted) -> None:
        if not await self._defer(lease, milliseconds(seconds), counted):
            raise LeaseLost("another worker has the entry now, or it was flushed")

    async def release(self, leases: Sequence[Lease]) -> None:
        await asyncio.gather(*(self._defer(lease, 0, "") for lease in leases))

    async def _defer(self, lease: Lease, delay_ms: int, counted: Counted) -> bool:
        words = [*lease_arguments(lease), *lock_arguments(lease.single_flight), delay_ms, counted]
        done = _number(await self._deferrals.submit(lease.stream, words)) == 1
        self._watches[lease.holder.owner].lock_released(lease.single_flight)
        return done

    async def trim(self, stream: str, keep_seconds: float) -> int:
        return int(await self._scripts["trim"](stream, [stream, milliseconds(keep_seconds)]))

    async def groups(self, streams: Sequence[str], entries: int = 100) -> list[GroupStatus]:
        if not streams:
            return []
        *reply, skipped = await self._scripts["groups"](streams[0], [entries, len(streams), *streams])
        self._skipped.report(skipped)
        return read_groups(reply)

    async def lengths(self, streams: Sequence[str]) -> list[int]:
        found = await self._look(streams[0], ["lengths", len(streams), *streams]) if streams else []
        return [int(length) for length in found]

    async def weights(self, streams: Sequence[str]) -> list[int]:
        return [int(await self._commands.call("MEMORY USAGE", stream, "SAMPLES", 0) or 0) for stream in streams]

    async def redrive(self, dead_stream: str, letter_id: str) -> bool:
        found = await self._commands.call("XRANGE", dead_stream, letter_id, letter_id)
        if not found:
            return False
        flat = found[0][1]
        letter = read_letter(letter_id, dict(zip(flat[::2], flat[1::2], strict=True)))
        if letter is None or not letter.fields:
            raise BusRefused(f"{letter_id} on {dead_stream} is no dead letter that can be sent again")
        check_fields(letter)
        outcome = b"%b:done:%b:%b" % (letter.stream.encode(), letter.group.encode(), letter.identity)
        words: Words = [dead_stream, letter_id, letter.stream, outcome, secrets.token_hex(8)]
        whole: Words = [len(letter.flat), *letter.flat]
        words += whole if letter.flat else field_arguments(letter.fields)
        return bool(await self._scripts["redrive"](dead_stream, words))

    async def drop(self, dead_stream: str, letter_id: str) -> bool:
        return bool(await self._commands.call("XDEL", dead_stream, letter_id))


def _number(reply: Reply) -> int:
    """An item's reply of defer.lua or acquire.lua: a number, or what is wrong with its keys. Raises BusRefused."""
    if isinstance(reply, bytes):
        raise BusRefused(f"Redis: {reply.decode(errors='replace')}")
    return int(reply)
