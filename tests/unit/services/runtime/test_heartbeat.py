"""Who serves, over the bus in memory."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from events.bus import IndexWrite, Outcome
from events.memory.bus import MemoryBus
from services.runtime.heartbeat import LASTS_SECONDS, HeartbeatSender, RoleBeat, own_version, processes, serving

pytestmark = pytest.mark.faked_time

START = datetime(2026, 1, 2, tzinfo=UTC)


def _now() -> datetime:
    return START + timedelta(seconds=asyncio.get_running_loop().time())


async def test_roles_are_seen_while_their_process_beats() -> None:
    """Each with host, process and version; three missed beats later they are gone."""
    bus = MemoryBus()
    presence = HeartbeatSender(bus=bus, prefix="t", roles=["deployer", "api"], host="h", pid=7, clock=_now)
    running = asyncio.create_task(presence.run())
    await asyncio.sleep(12)
    running.cancel()
    seen = await serving(bus, "t")
    assert sorted(seen) == ["api", "deployer"]
    (beat,) = seen["deployer"]
    assert beat == RoleBeat(role="deployer", host="h", pid=7, version=own_version(), at=START + timedelta(seconds=10))
    await asyncio.sleep(LASTS_SECONDS + 1)
    assert await serving(bus, "t") == {}


async def test_a_role_that_no_process_serves_any_more_counts_as_none() -> None:
    """As long as it was served lately; each process of a role counts."""
    bus = MemoryBus()
    ended = [
        asyncio.create_task(HeartbeatSender(bus=bus, prefix="t", roles=roles, host="h", pid=pid, clock=_now).run())
        for pid, roles in enumerate((["api", "deployer"], ["api"]))
    ]
    await asyncio.sleep(1)
    for one in ended:
        one.cancel()
    assert await processes(bus, "t", since=START) == {"api": 2, "deployer": 1}
    await asyncio.sleep(LASTS_SECONDS + 1)
    assert await processes(bus, "t", since=START) == {"api": 0, "deployer": 0}
    assert await processes(bus, "t", since=_now()) == {}


async def test_processes_long_gone_are_forgotten() -> None:
    """The index does not grow for ever."""
    bus = MemoryBus()
    old = START.timestamp() - 100_000
    await bus.commit(Outcome(index=(IndexWrite("t:index:roles", "deployer:gone.1", old),)))
    running = asyncio.create_task(
        HeartbeatSender(bus=bus, prefix="t", roles=["api"], host="h", pid=7, clock=_now).run()
    )
    await asyncio.sleep(1)
    running.cancel()
    assert await bus.members("t:index:roles") == ["api:h.7"]
