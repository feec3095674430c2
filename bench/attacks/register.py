"""Register of attacks. Each is a function of the stage that returns its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.attacks.stage import Stage


@dataclass(frozen=True, slots=True)
class Result:
    """`harm`: it did what it was to do, to somebody else than the attacker. `said` is what was seen."""

    harm: bool
    said: str


Attack = Callable[[Stage], Result]
#: Name → attack, in the order in which they are tried.
ATTACKS: dict[str, Attack] = {}
#: Those that load the stack: an honest deployment is timed beside each of them and after it.
FLOODS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    """Put an attack on the list under its function's name."""
    ATTACKS[function.__name__] = function
    return function


def flood(function: Attack) -> Attack:
    """Put an attack on both lists. It starts its flood and returns while the flood goes on, for so long as it said."""
    FLOODS[function.__name__] = function
    ATTACKS[function.__name__] = function
    return function


def refused(said: str) -> Result:
    """The attacker was told no, or cut off; anything else is harm."""
    words = said.strip()
    return Result(not words or words.splitlines()[-1] not in REFUSALS, words[-300:])


REFUSALS = (
    *("refused", "denied", "away", "lost", "ended: ConnectionError", "ended: ConnectionResetError"),
    *("ended: BrokenPipeError", "ended: TimeoutError"),
)
