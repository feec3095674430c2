"""How far a plan is."""

import pytest

from services.core.deployments.plans import PlanState, plan_state


@pytest.mark.parametrize(
    ("registry", "ranges", "state"),
    [
        (["there"], [], "done"),
        (["there", "there"], ["succeeded"], "done"),
        (["there", "waiting"], ["succeeded"], "under way"),
        (["there"], ["succeeded", "running"], "under way"),
        (["failed"], ["requested"], "under way"),
        (["there"], ["succeeded", "away"], "incomplete"),
        (["there"], ["failed"], "incomplete"),
        (["failed"], ["succeeded"], "incomplete"),
    ],
)
def test_a_plan_goes_on_until_nothing_of_it_moves(registry: list[str], ranges: list[str], state: PlanState) -> None:
    """Then it is done if everything is there, and incomplete if not: a range that was away is not waited for."""
    assert plan_state(registry, ranges) == state
