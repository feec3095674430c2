"""What `doctor` says about the registry as a store."""

from __future__ import annotations

from pathlib import Path

from events.bus import IndexWrite, Outcome
from events.records import ANY
from services.core.hosts.hosts import HostKeys
from services.core.store.pressure import DiskState, disk_state_key, host_disk_key
from tests.unit.services.doctor.test_checks import _beats, _findings
from tests.unit.services.twins import Cluster


async def test_no_collector_is_a_remark(tmp_path: Path) -> None:
    """All but deletion works without one."""
    world = Cluster()
    found = (await _findings(world, tmp_path))["collector"]
    assert (found.state, found.advice) == ("note", "start it: cyroid-images serve collector")
    assert "nothing is deleted or collected" in found.found
    await _beats(world, "collector")
    assert (await _findings(world, tmp_path))["collector"].state == "ok"


async def test_a_disk_that_is_low_is_told(tmp_path: Path) -> None:
    """Since when, how much was free, and how often room was made; its end is told too."""
    world = Cluster()
    assert (await _findings(world, tmp_path))["disk pressure"].state == "ok"
    low = DiskState(low=True, since=86400.0, rounds=3, free_bytes=2 * 10**9, total_bytes=100 * 10**9)
    for state in (low, DiskState(since=90000.0, free_bytes=10**10, total_bytes=10**11)):
        await world.bus.commit(Outcome(records=(disk_state_key("test").write(state, expected=ANY),)))
        found = (await _findings(world, tmp_path))["disk pressure"]
        assert found.state == ("wrong" if state.low else "ok")
        if state.low:
            assert "low since 1970-01-02 00:00:00+00:00: 2.0 of 100.0 GB were free" in found.found
            assert "room was made 3 times" in found.found
            assert "registry retention" in found.advice


async def test_a_host_s_engine_whose_disk_is_low_is_told(tmp_path: Path) -> None:
    """With the host, and with what frees that disk."""
    world = Cluster()
    low = DiskState(low=True, since=86400.0, rounds=1, free_bytes=2 * 10**9, total_bytes=100 * 10**9)
    record = host_disk_key("test", "h1").write(low, expected=ANY)
    await world.bus.commit(Outcome(records=(record,), index=(IndexWrite(HostKeys("test").all, "h1", 1.0),)))
    found = (await _findings(world, tmp_path))["disk pressure"]
    assert found.state == "wrong"
    assert "engine of host h1 is low" in found.found
    assert "images reclaim" in found.advice
