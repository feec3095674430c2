"""Questions to hosts: shared while they are asked, ended with whoever asked (answers: `test_many_hosts.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from events.bus import BusUnreachable, IndexWrite, Outcome
from events.memory.bus import MemoryBus
from services.core.hosts.hosts import HostKeys, HostRecord
from services.core.hosts.looks import LookAnswer
from services.deployer.host_lookup import HostLookup
from tests.unit.services.twins import STREAMS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = "docker.io/library/web:1"


class Hosts(MemoryBus):
    """A bus on which the questions to `silent` hosts stay without an answer, and those to `broken` ones fail."""

    def __init__(self, silent: Sequence[str] = (), broken: Sequence[str] = ()) -> None:
        super().__init__()
        self.names, self.silent, self.broken = (*silent, *broken), silent, broken
        self.looks: set[str] = set()
        self._asked = asyncio.Condition()

    async def beats(self, keys: Sequence[str]) -> list[bytes | None]:
        looks = [key for key in keys if ":look:" in key]
        self.looks.update(looks)
        async with self._asked:
            self._asked.notify_all()
        if any(f":host:{host}:" in key for key in looks for host in self.broken):
            raise BusUnreachable("Redis is away")
        return await super().beats(keys)

    async def lookup(self) -> HostLookup:
        for host in self.names:
            record = HostRecord(host=host, machine=host, since=NOW, seen_at=NOW)
            await self.commit(Outcome(index=(IndexWrite(HostKeys("test").all, host, 1.0),)))
            await self.beat(STREAMS.host_alive(host), record.encode(), 3600.0)
        return HostLookup(bus=self, streams=STREAMS, source="test", clock=lambda: NOW, answer_seconds=3600.0)

    async def asked(self, times: int) -> None:
        async with self._asked:
            await self._asked.wait_for(lambda: len(self.looks) >= times)


def _others() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


@pytest.mark.faked_time
async def test_a_question_ends_with_the_one_who_asked() -> None:
    """A deployer that is stopped leaves no task behind, however many hosts it was asking."""
    bus = Hosts(silent=["h1", "h2"])
    lookup = await bus.lookup()
    before = _others()
    asking = asyncio.create_task(lookup.find(NAME))
    await bus.asked(2)
    asking.cancel()
    await asyncio.wait((asking,))
    assert asking.cancelled()
    assert _others() == before


@pytest.mark.faked_time
async def test_who_is_left_gets_the_answer_of_a_shared_question() -> None:
    """Two ask the same: it is asked once, and goes on when one of them leaves."""
    bus = Hosts(silent=["h1"])
    lookup = await bus.lookup()
    first, second = (asyncio.create_task(lookup.find(NAME)) for _ in range(2))
    await bus.asked(1)
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.wait((first,))
    (look,) = bus.looks
    await bus.beat(look, LookAnswer().encode(), 60.0)
    assert await second == (None, None)


@pytest.mark.faked_time
async def test_a_failed_question_ends_the_others() -> None:
    """The error is the answer, once all questions have ended."""
    bus = Hosts(broken=["h1", "h2"])
    lookup = await bus.lookup()
    before = _others()
    with pytest.raises(BusUnreachable):
        await lookup.find(NAME)
    assert _others() == before
