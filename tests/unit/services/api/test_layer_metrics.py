"""Mounted layers that cannot be read, as a gauge."""

from __future__ import annotations

from events.bus import IndexWrite, Outcome
from events.memory.bus import MemoryBus
from events.records import ANY
from services.api.layer_metrics import measure_layers
from services.core.hosts.hosts import HostKeys
from services.core.mounts.pins import MountedBlobs, MountKeys
from services.core.mounts.problems import MountProblem, ReportedLayers
from services.runtime.metrics import REGISTRY

PREFIX = "layers"
ONE, TWO = (f"sha256:{digit * 64}" for digit in "ab")


def told() -> dict[tuple[str, str], float]:
    """The gauge's samples: (host, finder) → layers."""
    (family,) = (one for one in REGISTRY.collect() if one.name == "cyroid_layers_unreadable")
    return {(one.labels["host"], one.labels["found_by"]): one.value for one in family.samples}


async def hosts(bus: MemoryBus, **problems: tuple[MountProblem, ...]) -> None:
    """Each host reported, and its layer-mounter recorded these problems."""
    mounts = MountKeys(PREFIX)
    for host, found in problems.items():
        record = mounts.host(host).write(MountedBlobs(problems=found), expected=ANY)
        index = (IndexWrite(mounts.hosts, host, 0.0), IndexWrite(HostKeys(PREFIX).all, host, 0.0))
        await bus.commit(Outcome(records=(record,), index=index))


async def test_a_layer_counts_once_for_a_host_however_many_ranges_have_it() -> None:
    """A range's seed is no layer; a host where all is well says 0."""
    bus = MemoryBus()
    lost = [MountProblem(range_id=range_id, diff_id=ONE, why="gone") for range_id in ("r1", "r2")]
    seed = MountProblem(range_id="r1", diff_id="", why="the seed")
    await hosts(bus, h1=(*lost, seed), h2=())
    reported = [ReportedLayers("r3", "h2", (ONE, TWO)), ReportedLayers("r4", "h2", (TWO,))]
    await measure_layers(bus, PREFIX, reported)
    assert told() == {
        ("h1", "layer-mounter"): 1,
        ("h1", "agent"): 0,
        ("h2", "layer-mounter"): 0,
        ("h2", "agent"): 2,
    }


async def test_what_ranges_make_up_makes_no_series() -> None:
    """A hundred ranges that name a hundred hosts are one, without a host."""
    bus = MemoryBus()
    await hosts(bus, h1=())
    lies = [ReportedLayers(f"r{number}", f"made-up-{number}", (ONE,)) for number in range(100)]
    await measure_layers(bus, PREFIX, lies)
    assert told() == {("h1", "layer-mounter"): 0, ("h1", "agent"): 0, ("", "agent"): 1}


async def test_a_host_that_was_forgotten_is_told_no_more() -> None:
    """Its last problem would be an alarm for ever."""
    bus = MemoryBus()
    await hosts(bus, h1=(MountProblem(range_id="r1", diff_id=ONE, why="gone"),))
    await measure_layers(bus, PREFIX, ())
    assert told()["h1", "layer-mounter"] == 1
    await measure_layers(MemoryBus(), PREFIX, ())
    assert told() == {}
