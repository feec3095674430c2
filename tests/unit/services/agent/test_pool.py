"""Driving the engines of ranges without an agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec

from events.bus import IndexWrite, Outcome, RecordWrite
from events.records import ANY
from services.agent.pool import AgentPool, Claim
from services.commands.range_claims import claiming
from services.core.ranges.ranges import EnginePlace, RangeKeys
from services.runtime.shutdown import Stop
from tests.unit.services.twins import BusOnOff

KEYS = RangeKeys("test")


class _Agents:
    """Notes which agents run; the first run of a range in `fails` fails."""

    def __init__(self) -> None:
        self.running: dict[str, str] = {}
        self.begun: list[str] = []
        self.fails: set[str] = set()
        self.stubborn = False
        self._changed = asyncio.Event()

    async def drive(self, place: EnginePlace, stop: Stop) -> None:
        self.begun.append(place.range_id)
        if place.range_id in self.fails:
            self.fails.discard(place.range_id)
            raise KeyError("an engine that says nonsense")
        self.running[place.range_id] = place.engine_url
        self._changed.set()
        try:
            await (stop.insisted() if self.stubborn else stop.asked())
        finally:
            del self.running[place.range_id]
            self._changed.set()

    async def until(self, running: dict[str, str]) -> None:
        """Wait until exactly these run."""
        async with asyncio.timeout(10):
            while self.running != running:
                self._changed.clear()
                await self._changed.wait()


async def _place(bus: BusOnOff, range_id: str, url: str | None) -> None:
    place = EnginePlace(range_id=range_id, engine_url=url or "", deployment_id="d", since=datetime.now(UTC))
    value = msgspec.json.encode(place) if url else None
    await bus.commit(
        Outcome(
            records=(RecordWrite(KEYS.place(range_id).name, value),),
            index=(IndexWrite(KEYS.places, range_id, 1.0 if url else None),),
        )
    )


@asynccontextmanager
async def _pool(
    bus: BusOnOff, agents: _Agents, *, engine_networks: str = "", host: str = "", claim: Claim | None = None
) -> AsyncIterator[AgentPool]:
    pool = AgentPool(
        bus=bus,
        prefix="test",
        drive=agents.drive,
        engine_networks=engine_networks,
        host=host,
        claim=claim,
        check_seconds=0.01,
        pause_seconds=0.01,
    )
    running = asyncio.create_task(pool.run())
    yield pool
    running.cancel()
    await asyncio.wait({running})


async def test_agents_follow_the_places() -> None:
    """One per place; a new address gets a new agent, a place that is gone gets none."""
    bus, agents = BusOnOff(), _Agents()
    await _place(bus, "r1", "tcp://a:2375")
    async with _pool(bus, agents):
        await agents.until({"r1": "tcp://a:2375"})
        await _place(bus, "r2", "tcp://b:2375")
        await agents.until({"r1": "tcp://a:2375", "r2": "tcp://b:2375"})
        await _place(bus, "r1", "tcp://c:2375")
        await agents.until({"r1": "tcp://c:2375", "r2": "tcp://b:2375"})
        await _place(bus, "r2", None)
        await agents.until({"r1": "tcp://c:2375"})


async def test_an_engine_outside_of_the_named_networks_is_not_called() -> None:
    """Whatever record says that one is there; it may have been written before there was the setting."""
    bus, agents = BusOnOff(), _Agents()
    await _place(bus, "r1", "tcp://172.30.0.24:9099")
    await _place(bus, "r2", "tcp://172.30.1.6:2375")
    async with _pool(bus, agents, engine_networks="172.30.1.0/24"):
        await agents.until({"r2": "tcp://172.30.1.6:2375"})
        await _place(bus, "r2", None)
        await agents.until({})
    assert agents.begun == ["r2"]


async def test_one_that_fails_is_started_again_and_harms_no_other() -> None:
    """Whatever an engine makes its agent trip over."""
    bus, agents = BusOnOff(), _Agents()
    agents.fails = {"r1"}
    await _place(bus, "r1", "tcp://a:2375")
    await _place(bus, "r2", "tcp://b:2375")
    async with _pool(bus, agents):
        await agents.until({"r1": "tcp://a:2375", "r2": "tcp://b:2375"})
    assert agents.begun.count("r1") == 2
    assert agents.begun.count("r2") == 1


async def test_draining_ends_the_agents_in_their_grace() -> None:
    """And begins none any more."""
    bus, agents = BusOnOff(), _Agents()
    await _place(bus, "r1", "tcp://a:2375")
    async with _pool(bus, agents) as pool:
        await agents.until({"r1": "tcp://a:2375"})
        async with asyncio.timeout(10):
            await pool.drain(20)
        assert agents.running == {}
    assert agents.begun == ["r1"]


async def test_a_second_request_hurries_them() -> None:
    """An agent that would take its time ends at once."""
    bus, agents = BusOnOff(), _Agents()
    agents.stubborn = True
    await _place(bus, "r1", "tcp://a:2375")
    async with _pool(bus, agents) as pool:
        await agents.until({"r1": "tcp://a:2375"})
        polite = asyncio.create_task(pool.drain(20))
        async with asyncio.timeout(10):
            await pool.drain(0)
            await polite
        assert agents.running == {}


async def test_each_engine_is_driven_by_the_pool_of_one_host() -> None:
    """The one that the request names, or the first to claim the range; the other leaves it alone."""
    bus, ours, theirs = BusOnOff(), _Agents(), _Agents()
    keys = RangeKeys("test")
    for range_id, host in (("r1", "a"), ("r2", "b"), ("r3", "")):
        place = EnginePlace(
            range_id=range_id,
            engine_url=f"tcp://{range_id}:2375",
            deployment_id="d",
            since=datetime.now(UTC),
            host=host,
        )
        index = (IndexWrite(keys.places, range_id, 1.0),)
        await bus.commit(Outcome(records=(keys.place(range_id).write(place, expected=ANY),), index=index))
    claims = {host: claiming(bus, "test", host=host, clock=lambda: datetime.now(UTC)) for host in "ab"}
    async with _pool(bus, ours, host="a", claim=claims["a"]):
        await ours.until({"r1": "tcp://r1:2375", "r3": "tcp://r3:2375"})
        async with _pool(bus, theirs, host="b", claim=claims["b"]):
            await theirs.until({"r2": "tcp://r2:2375"})
            await asyncio.sleep(0.05)
            assert theirs.begun == ["r2"]
