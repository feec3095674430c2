"""The disk of a host's engine: watched, told, and relieved (what else a host says of itself: `test_many_hosts.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from events.bus import Outcome
from events.memory.bus import MemoryBus
from events.messages import DiskPressure, ReclaimRequested
from services.adapters.memory_engine import MemoryEngine
from services.core.hosts.hosts import HostRecord
from services.core.store.pressure import host_disk_key
from services.registry_pusher.host_look import HostLook
from services.registry_pusher.host_presence import RECORD_SECONDS, HostPresence
from services.runtime.disk_watch import AGAIN_SECONDS, LOOK_SECONDS
from services.runtime.host_identity import HostIdentity
from tests.unit.services.twins import STREAMS

NOW = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
MESSAGE = DiskPressure(low=True, free_bytes=9, total_bytes=100, limit_bytes=10, host="h1")
RECLAIM = ReclaimRequested(patterns=("*",), why="pressure", host="h1")


class Posted(MemoryBus):
    """A bus that keeps what was published with each commit."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[object] = []

    async def commit(self, outcome: Outcome) -> None:
        await super().commit(outcome)
        self.said += [post.envelope.message for post in outcome.posts]


class Host:
    """A host whose engine's disk has `free` of 100 bytes; two replicas of its registry-pusher watch it."""

    def __init__(self, free: int | None) -> None:
        self.free, self.now, self.bus = free, NOW, Posted()

    def presence(self, engine: MemoryEngine | None = None) -> HostPresence:
        engine = engine or MemoryEngine()

        async def opened() -> MemoryEngine:
            return engine

        return HostPresence(
            bus=self.bus,
            streams=STREAMS,
            identity=HostIdentity(chosen="h1", folder="", engine=opened),
            engine=engine,
            look=HostLook(engine, ()),
            machine="m",
            clock=lambda: datetime.fromtimestamp(self.now, UTC),
            space=lambda: None if self.free is None else (self.free, 100),
            free_percent=10.0,
        )

    async def look(self) -> Sequence[object]:
        """What was published once both had looked."""
        del self.bus.said[:]
        for presence in (self.presence(), self.presence()):
            await presence.disk_watch("h1").look()
        return tuple(self.bus.said)


async def test_a_disk_that_is_low_is_told_once_and_relieved_again_and_again() -> None:
    """Its own copies that a rule allows are freed, no other host's; the end is told too."""
    host = Host(free=50)
    assert await host.look() == ()
    host.free = 9
    assert await host.look() == (MESSAGE, RECLAIM)
    assert await host.look() == ()
    host.now += AGAIN_SECONDS
    assert await host.look() == (RECLAIM,)
    host.free = 50
    (over,) = await host.look()
    assert isinstance(over, DiskPressure)
    assert (over.low, over.host) == (False, "h1")


@pytest.mark.faked_time
async def test_a_disk_that_cannot_be_read_now_is_no_end() -> None:
    """The next look finds it again."""
    host = Host(free=None)
    with pytest.raises(OSError, match="cannot be read"):
        await host.look()


@pytest.mark.faked_time
@pytest.mark.parametrize("free", [9, None])
async def test_a_running_host_watches_its_disk(free: int | None) -> None:
    """Beside its heartbeats, where its disk can be read."""
    host = Host(free=free)
    running = asyncio.create_task(host.presence().run())
    await asyncio.sleep(LOOK_SECONDS)
    running.cancel()
    await asyncio.wait((running,))
    state = (await host_disk_key("test", "h1").load(host.bus)).value
    assert (state is not None and state.low) == (free == 9)


@pytest.mark.faked_time
@pytest.mark.parametrize(("name", "shown"), [("host-of-metal", "host-of-metal"), ("", "m")])
async def test_a_machine_is_called_what_its_engine_calls_it(name: str, shown: str) -> None:
    """A role in a container sees its container's name alone. While the engine is away, the name is remembered."""
    host, engine = Host(free=50), MemoryEngine()
    engine.name = name
    running = asyncio.create_task(host.presence(engine).run())
    for away in (False, True):
        engine.away = away
        await asyncio.sleep(LOOK_SECONDS + RECORD_SECONDS)
        (beat,) = await host.bus.beats([STREAMS.host_alive("h1")])
        record = HostRecord.read(beat)
        assert record is not None
        assert (record.machine, bool(record.error)) == (shown, away)
    running.cancel()
    await asyncio.wait((running,))
