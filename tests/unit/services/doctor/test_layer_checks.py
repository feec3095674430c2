"""Mounted layers that cannot be read, and hosts without their layer-mounter."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from events.bus import IndexWrite, Outcome
from events.records import ANY
from services.core.mounts.pins import MountedBlobs, MountKeys
from services.core.mounts.problems import MountProblem, UnreadableLayer
from services.core.ranges.ranges import KnownRange, RangeKeys
from services.doctor.findings import Note, Wrong
from services.doctor.layer_checks import check_layers
from tests.unit.services.doctor.test_checks import _findings
from tests.unit.services.twins import STREAMS, Cluster

ONE, TWO = (f"sha256:{digit * 64}" for digit in "ab")


def unreadable(range_id: str, diff_id: str = ONE) -> UnreadableLayer:
    return UnreadableLayer("h1", "agent", range_id, diff_id)


def test_ranges_with_layers_that_cannot_be_read_are_named() -> None:
    """Only the first ones; a host without its layer-mounter is a remark."""
    assert check_layers((), (), ()) == "no host shows ranges any"
    assert check_layers(("h1", "h2"), (), ()) == "all of h1, h2 can be read"
    with pytest.raises(Note, match=r"no layer-mounter runs on h1, .*restart of the host"):
        check_layers(("h1",), ("h1",), ())
    with pytest.raises(Wrong, match=r"^1 layer cannot be read in r1, r2$"):
        check_layers(("h1",), ("h1",), (unreadable("r1"), unreadable("r2")))
    with pytest.raises(Wrong, match=r"^2 layers cannot be read in r1$") as told:
        check_layers(("h1",), (), (unreadable("r1"), unreadable("r1", TWO)))
    assert "verify RANGE" in told.value.advice
    with pytest.raises(Wrong, match="and 3 more"):
        check_layers(("h1",), (), [unreadable(f"r{number}") for number in range(8)])


async def test_doctor_hears_hosts_and_agents(tmp_path: Path) -> None:
    """What a layer-mounter recorded, and what an agent that answers reported."""
    world, mounts, ranges = Cluster(), MountKeys(STREAMS.prefix), RangeKeys(STREAMS.prefix)

    async def found() -> tuple[str, str]:
        finding = (await _findings(world, tmp_path))["mounted layers"]
        return finding.state, finding.found

    async def mounted(*problems: MountProblem) -> None:
        record = mounts.host("h1").write(MountedBlobs(digests=(ONE,), problems=problems), expected=ANY)
        await world.bus.commit(Outcome(records=(record,), index=(IndexWrite(mounts.hosts, "h1", 0.0),)))

    assert (await found())[0] == "ok"
    await mounted()
    assert (await found())[0] == "note"
    await world.bus.beat(STREAMS.mounter_alive("h1"), b"1", 60.0)
    assert await found() == ("ok", "all of h1 can be read")
    await mounted(MountProblem(range_id="r1", diff_id=ONE, why="gone"))
    assert await found() == ("wrong", "1 layer cannot be read in r1")
    await mounted()
    known = KnownRange(
        range_id="r2",
        engine_id="e",
        engine_version="28",
        store="classic",
        platform="linux/amd64",
        started_at=datetime(2030, 1, 1, tzinfo=UTC),
        unreadable_layers=(TWO,),
    )
    record = ranges.known("r2").write(known, expected=ANY)
    await world.bus.commit(Outcome(records=(record,), index=(IndexWrite(ranges.known_index, "r2", 0.0),)))
    assert (await found())[0] == "ok"  # its agent does not answer
    await world.bus.beat(STREAMS.alive("r2"), b"{}", 60.0)
    assert await found() == ("wrong", "1 layer cannot be read in r2")
