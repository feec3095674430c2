"""Each attack of `bench attacks`, from inside a range of every engine's kind where that matters: none does harm.

The floods are the bench's: they are measured against honest deployments, which takes minutes for each.
"""

from __future__ import annotations

from contextlib import closing

import pytest

from bench.attacks import archives, browser, engine, fetching, kernel, messages, network, secrets, sizes
from bench.attacks.register import ATTACKS, FLOODS
from bench.attacks.stage import Stage as Scene
from tests.stack.operator import RANGES, Stack

MODULES = {module.__name__ for module in (archives, browser, engine, fetching, messages, network, secrets, sizes)}
CHOSEN = [name for name, one in ATTACKS.items() if one.__module__ in MODULES and name not in FLOODS]
OF_THE_KERNEL = [name for name, one in ATTACKS.items() if one.__module__ == kernel.__name__]


def scene(stack: Stack, attacker: str) -> Scene:
    victim = "r26" if attacker != "r26" else "r28"
    return Scene(attacker=attacker, victim=victim, data=stack.data, docker_host=f"unix://{stack.socket}")


def test_the_attacker_has_what_an_agent_has(stack: Stack) -> None:
    """The control: what an agent does works for the attacker, so what is refused below is refused for a reason."""
    with closing(scene(stack, "r28")) as stage:
        assert network.control(stage) == network.WELL


@pytest.mark.parametrize("name", CHOSEN)
def test_an_attack_does_no_harm(name: str, stack: Stack) -> None:
    """As the attack's own docstring says what it tries."""
    with closing(scene(stack, "r28")) as stage:
        result = ATTACKS[name](stage)
    assert not result.harm, result.said


@pytest.mark.parametrize("attacker", RANGES)
@pytest.mark.parametrize("name", OF_THE_KERNEL)
def test_no_engine_lets_its_range_out(name: str, attacker: str, stack: Stack) -> None:
    """On every engine of the matrix: what the kernel is asked for is refused, also from the range's own containers."""
    with closing(scene(stack, attacker)) as stage:
        result = ATTACKS[name](stage)
    assert not result.harm, result.said
