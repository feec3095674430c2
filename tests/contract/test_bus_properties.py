"""Whatever order things happen in: every published event ends in exactly one of done and dead, and once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import fakeredis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from events.bus import LeaseLost, Outcome, Post
from events.dead_letters import dead_letters
from events.envelope import Envelope
from events.lease import Bus, DeadLetterReason, Holder, Lease
from events.memory.bus import MemoryBus
from events.messages import PushRequested
from events.redis.bus import RedisBus
from events.redis.client import Commands
from events.streams import Streams
from tests.contract.buses import without_shebang

T = TypeVar("T")
STREAMS = Streams("test")
#: No stream of ours, so anything may be published there.
EFFECTS = f"{STREAMS.prefix}:effects"
OWNERS = st.sampled_from(["a", "b", "c"])
WHICH = st.integers(0, 1000)


class MemoryMachine(RuleBasedStateMachine):
    """Three workers that publish, take, steal, finish, fail, bury, hand back, die, trim, redrive and flush at will.

    Leases last no time, so `steal` may take anything from anybody: a pause, a partition and a crash are all that.

    A flush takes streams, groups, leases, what was published and what was done; groups are made anew from the first
    entry, and publishers publish again whatever they do not know the end of (and, as `publish_again` does at any time,
    what they do). Outcomes committed before are history that no bus can know, so what holds is said per epoch, the time
    between two flushes: in one epoch an event has never two outcomes, and one that was published in the last epoch has
    exactly one there; no lease from before a flush settles anything after it; over all epochs each event has an end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.bus = self.open()
        self.published: dict[str, Envelope] = {}
        self.leases: list[Lease] = []
        self.standing: dict[tuple[str, str], Lease] = {}
        self.settled: list[Lease] = []
        self.epoch: set[str] = set()  # subjects published since the last flush
        self.history: set[str] = set()  # subjects that ended before it

    def open(self) -> Bus:
        return MemoryBus()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        try:
            self.do(self.end_well())
        finally:
            self.runner.close()

    # ---- what may happen ----

    @rule()
    def publish(self) -> None:
        number = str(len(self.published))
        self.published[number] = Envelope(message=PushRequested(reference="a"), source="test", subject=number)
        self.say(number)

    def say(self, number: str) -> None:
        self.do(self.bus.publish(STREAMS.images, self.published[number]))
        self.epoch.add(number)

    @precondition(lambda self: self.published)
    @rule(which=WHICH)
    def publish_again(self, which: int) -> None:
        self.say(str(which % len(self.published)))

    @rule(owner=OWNERS, count=st.integers(1, 3))
    def take(self, owner: str, count: int) -> None:
        taken = self.do(self.bus.take(Holder("g", owner, 0.0), [STREAMS.images], count)).leases
        assert len(taken) <= count
        self.given(taken)

    @rule(owner=OWNERS, count=st.integers(1, 3))
    def steal(self, owner: str, count: int) -> None:
        found = self.do(self.bus.recover(Holder("g", owner, 0.0), [STREAMS.images], count, []))
        self.given(found.leases)

    def given(self, leases: Sequence[Lease]) -> None:
        """Of all leases ever given on an entry, the last one stands."""
        self.leases += leases
        self.standing.update({lease.place: lease for lease in leases})

    def stands(self, lease: Lease) -> bool:
        return self.standing.get(lease.place) is lease

    def ends(self, lease: Lease, work: Coroutine[Any, Any, Any]) -> Any:
        """What settles or puts aside is done under the standing lease, and refused under any other.

        A settlement may be told again by the worker that made it (the reply got lost): no other lease may.
        """
        stood = self.stands(lease)
        try:
            result = self.do(work)
        except LeaseLost:
            assert not stood
            return False
        assert stood or lease in self.settled
        if stood:
            del self.standing[lease.place]
        return result

    def settle(self, lease: Lease, work: Coroutine[Any, Any, Any]) -> None:
        stood = self.stands(lease)
        self.ends(lease, work)
        if stood:
            self.settled.append(lease)

    @precondition(lambda self: self.leases)
    @rule(which=WHICH)
    def finish(self, which: int) -> None:
        lease = self.lease(which)
        self.settle(lease, self.bus.finish(lease, self.effect(lease)))

    def replaced(self) -> list[Lease]:
        """Leases that another worker's, or a flush, put an end to."""
        return [lease for lease in self.leases if not self.stands(lease) and lease not in self.settled]

    @precondition(lambda self: self.replaced())
    @rule(which=WHICH)
    def wake_and_finish(self, which: int) -> None:
        """A worker that was paused, cut off or killed half-way does not know that it was replaced."""
        lost = self.replaced()
        lease = lost[which % len(lost)]
        self.settle(lease, self.bus.finish(lease, self.effect(lease)))

    @precondition(lambda self: self.leases)
    @rule(which=WHICH)
    def dead_letter(self, which: int) -> None:
        lease = self.lease(which)
        self.settle(
            lease, self.bus.dead_letter(lease, DeadLetterReason(STREAMS.dead, "permanent", "no", "t"), Outcome())
        )

    @precondition(lambda self: self.leases)
    @rule(which=WHICH, counted=st.sampled_from(["failed", "waited", ""]))
    def defer(self, which: int, counted: Any) -> None:
        lease = self.lease(which)
        self.ends(lease, self.bus.defer(lease, 0.001, counted))

    @precondition(lambda self: self.leases)
    @rule(which=WHICH)
    def hand_back(self, which: int) -> None:
        lease = self.lease(which)
        self.do(self.bus.release([lease]))
        if self.stands(lease):
            del self.standing[lease.place]

    @precondition(lambda self: self.leases)
    @rule(which=WHICH)
    def renew(self, which: int) -> None:
        lease = self.lease(which)
        assert self.do(self.bus.renew([(lease, None)])) == ([] if self.stands(lease) else [lease])

    @rule()
    def trim(self) -> None:
        self.do(self.bus.trim(STREAMS.images, -60.0))

    @rule()
    def redrive(self) -> None:
        for letter in self.do(dead_letters(self.bus, STREAMS.dead)):
            self.do(self.bus.redrive(STREAMS.dead, letter.letter_id))

    @precondition(lambda self: self.epoch)
    @rule()
    def flush(self) -> None:
        self.history |= self.do(self.ends_here()).keys()
        self.do(self.flushed())
        self.standing.clear()
        self.settled.clear()
        self.epoch.clear()

    async def flushed(self) -> None:
        """Ids begin with a millisecond, so one of before can come again only within that: a flush takes longer."""
        await self.forget()
        await asyncio.sleep(0.002)

    async def forget(self) -> None:
        assert isinstance(self.bus, MemoryBus)
        self.bus.forget()

    # ---- what must hold ----

    @invariant()
    def what_is_pending_is_there(self) -> None:
        """Nothing that is not acknowledged was trimmed."""
        entries, statuses = self.do(self.look())
        for status in statuses:
            assert {entry.entry_id for entry in status.entries} <= entries

    async def look(self) -> tuple[set[str], list[Any]]:
        entries = {entry.entry_id async for entry in self.bus.tail([STREAMS.images], after="0", follow=False)}
        return entries, await self.bus.groups([STREAMS.images])

    @invariant()
    def a_lease_that_stands_is_pending_to_its_owner(self) -> None:
        """Nobody without it renewed, put aside or handed back what another holds."""
        owners = {
            (status.stream, entry.entry_id): (entry.owner, entry.deliveries)
            for status in self.do(self.look())[1]
            for entry in status.entries
        }
        for place, lease in self.standing.items():
            assert owners.get(place) == (lease.holder.owner, lease.deliveries)

    @invariant()
    def nothing_is_committed_twice(self) -> None:
        assert all(count == 1 for count in self.do(self.effects()).values())

    async def effects(self) -> Counter[str]:
        found = self.bus.tail([EFFECTS], after="0", follow=False)
        return Counter([entry.envelope.subject async for entry in found if entry.envelope])

    async def ends_here(self) -> Counter[str]:
        """How often each event is done or dead in this epoch."""
        ends = await self.effects()
        for letter in await dead_letters(self.bus, STREAMS.dead):
            ends[letter.fields[b"subject"].decode()] += 1
        return ends

    async def end_well(self) -> None:
        """Publishers say again what has no end yet; a last worker, whom nobody disturbs, brings all to its end."""
        unsure = self.published.keys() - self.history
        await self.bus.publish(STREAMS.images, *(self.published[number] for number in sorted(unsure)))
        last = Holder("g", "last", 0.0)
        async with asyncio.timeout(20):
            while True:
                taken = (await self.bus.take(last, [STREAMS.images], 50)).leases
                stolen = (await self.bus.recover(last, [STREAMS.images], 50, [one.place for one in taken])).leases
                for lease in (*taken, *stolen):
                    await self.bus.finish(lease, self.effect(lease))
                statuses = await self.bus.groups([STREAMS.images])
                if all(status.pending == 0 for status in statuses) and not taken:
                    break
                await asyncio.sleep(0.001)
        assert await self.ends_here() == Counter(dict.fromkeys(self.epoch | unsure, 1))

    def lease(self, which: int) -> Lease:
        return self.leases[which % len(self.leases)]

    def subject(self, lease: Lease) -> str:
        return lease.fields[b"subject"].decode()

    def effect(self, lease: Lease) -> Outcome:
        envelope = Envelope(message=PushRequested(reference="a"), source="test", subject=self.subject(lease))
        return Outcome(posts=(Post(EFFECTS, envelope),))


class FakeRedisMachine(MemoryMachine):
    """The same with the Lua scripts."""

    def open(self) -> Bus:
        return self.do(self.opened())

    async def opened(self) -> Bus:
        client = fakeredis.FakeAsyncRedis(protocol=2, legacy_responses=False, server=fakeredis.FakeServer())
        client.response_callbacks.clear()
        self.commands = commands = Commands(client)
        bus = RedisBus(commands, commands, dialect=without_shebang)
        self.senders = [asyncio.create_task(batch.run()) for batch in (bus._commits, bus._deferrals, bus._acquisitions)]
        return bus

    async def forget(self) -> None:
        await self.commands.call("FLUSHALL")


SETTINGS = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(SETTINGS, max_examples=60)
TestFakeRedis = FakeRedisMachine.TestCase
TestFakeRedis.settings = settings(SETTINGS, max_examples=12)
