"""Rounds that Hypothesis makes up: it finds a fault's smallest story, where the dice only find a long one."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.simulation.fault_injection import Script
from bench.simulation.fault_proxies import KINDS, Kind
from bench.simulation.run import SimulationRun
from bench.simulation.workload import IMAGES, NEMESIS_FAULTS, RANGES, Ask, NemesisEvent, Workload, round_settings

PROCESSES = (
    "deployer-0", "deployer-1", "pusher-0", "pusher-1", "tar-server", "tracker", "agent-pool", "agent-r0", "agent-r1",
    "layer-mounter",
)  # fmt: skip
#: About as many calls as a process makes in a story of this length.
CALLS = 400
moments = st.integers(0, 200).map(lambda tenths: tenths / 10)
asks = st.builds(
    Ask,
    at=moments,
    range_id=st.sampled_from(RANGES),
    images=st.lists(st.integers(0, IMAGES - 1), min_size=1, max_size=IMAGES, unique=True).map(tuple),
    priority=st.sampled_from((0, 5, 9)),
    cancel_after=st.none() | st.sampled_from((0.0, 0.3, 3.0)),
    retry_after=st.none() | st.sampled_from((5.0, 30.0)),
    planned=st.booleans(),
)
nemesis_faults = st.builds(
    NemesisEvent,
    at=moments,
    kind=st.sampled_from((*NEMESIS_FAULTS, "registry down")),
    range_id=st.sampled_from(RANGES),
    value=st.integers(0, 9).map(lambda tenths: tenths / 10),
)
workloads = st.builds(
    Workload,
    asks=st.lists(asks, min_size=1, max_size=5).map(tuple),
    nemesis_faults=st.lists(nemesis_faults, max_size=6).map(tuple),
    settings=st.sampled_from((1, 2, 8)).map(round_settings),
    stores=st.sets(st.sampled_from(("host", "r1"))).map(
        lambda some: tuple((one, "containerd") for one in sorted(some))
    ),
    at_hand=st.booleans(),
    mounting=st.booleans(),
)
scripts = st.dictionaries(
    st.tuples(st.sampled_from(PROCESSES), st.integers(0, CALLS)), st.sampled_from(KINDS), max_size=12
)


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(workload=workloads, script=scripts)
def test_whatever_goes_wrong_every_deployment_ends_once_and_right(
    workload: Workload, script: dict[tuple[str, int], Kind]
) -> None:
    """Requests, nemesis_faults and faulty calls in any combination."""
    assert SimulationRun(workload, Script(script)).run().problems == []
