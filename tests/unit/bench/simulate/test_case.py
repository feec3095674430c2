"""A short selection of the simulation: `python -m bench simulate` runs the whole of it."""

from __future__ import annotations

import pytest

from bench.simulate.case import simulate
from bench.simulation.workload import DEPLOYMENTS


@pytest.mark.parametrize("seed", [1, 4])
def test_every_deployment_ends_once_and_right(seed: int) -> None:
    """With faults at every step, no deployment is lost, wrong or stuck, and nothing is left behind."""
    one = simulate(seed)
    assert one.problems == []
    assert one.faults.kinds.total() > 50
    assert sum(one.count[state] for state in ("succeeded", "failed", "cancelled")) == DEPLOYMENTS


def test_a_seed_always_tells_the_same_story() -> None:
    """A round that goes wrong can be repeated."""
    first, second = simulate(2), simulate(2)
    assert first.count == second.count
    assert first.faults.kinds == second.faults.kinds
