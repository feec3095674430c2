"""A short selection of the simulation: `python -m bench simulate` runs the whole of it."""

from __future__ import annotations

import pytest

from bench.simulate import DEPLOYMENTS, simulate


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_every_deployment_ends_once_and_right(seed: int) -> None:
    """With faults at every step, no deployment is lost, wrong or stuck."""
    one = simulate(seed)
    assert one.problems == []
    assert one.chaos.faults > 50
    assert sum(one.count[state] for state in ("succeeded", "failed", "cancelled")) == DEPLOYMENTS


def test_a_seed_always_tells_the_same_story() -> None:
    """A round that goes wrong can be repeated."""
    first, second = simulate(2), simulate(2)
    assert first.count == second.count
    assert first.chaos.count == second.chaos.count
