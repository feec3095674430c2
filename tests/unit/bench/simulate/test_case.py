"""A short selection of the simulation: `python -m bench simulate` runs the whole of it."""

from __future__ import annotations

from functools import cache

import pytest

from bench.simulate.case import simulate
from bench.simulation.workload import DEPLOYMENTS

once = cache(simulate)


@pytest.mark.parametrize("seed", [1, 4])
def test_every_deployment_ends_once_and_right(seed: int) -> None:
    """With faults at every step, no deployment is lost, wrong or stuck, and nothing is left behind."""
    one = once(seed)
    assert one.problems == []
    assert one.faults.kinds.total() > 50
    assert sum(one.count[state] for state in ("succeeded", "failed", "cancelled")) == DEPLOYMENTS


def test_a_seed_always_tells_the_same_story() -> None:
    """A round that goes wrong can be repeated."""
    first, second = once(4), simulate(4)
    assert first.count == second.count
    assert first.faults.kinds == second.faults.kinds
