"""Workload of a run as plain data: who requests what and when, and which faults the environment has.

Dice make one (`rolled`), and so do Hypothesis' strategies in the tests; `bench.simulation.run` carries it out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from bench.simulation.cluster import SETTINGS
from services.core.images.image import Store
from services.settings import Settings

IMAGES = 4
DEPLOYMENTS = 12
RANGES = ("r0", "r1", "p0")
#: Long enough for whatever is asked for, and for a killed process to be back.
ROUND_SECONDS = 60.0

NemesisKind = Literal[
    "registry away", "registry down", "host engine away", "broken pull", "broken load", "stalled pull", "broken save",
    "range recreated", "image removed", "told again", "rebuilt", "killed",
]  # fmt: skip
#: Those that happen at any moment.
NEMESIS_FAULTS: tuple[NemesisKind, ...] = (
    "registry away", "host engine away", "broken pull", "broken load", "stalled pull", "broken save", "range recreated",
    "image removed", "told again", "told again", "rebuilt", "killed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ask:
    """A deployment of images (by number) to a range; cancelled or tried again so many seconds after it was asked for.

    `planned`: its images were announced beforehand.
    """

    at: float
    range_id: str
    images: tuple[int, ...]
    priority: int = 5
    cancel_after: float | None = None
    retry_after: float | None = None
    planned: bool = False


@dataclass(frozen=True, slots=True)
class NemesisEvent:
    """Something around the processes goes wrong. `value` (0 to 1) says which, or for how long, as far as it matters."""

    at: float
    kind: NemesisKind
    range_id: str
    value: float


@dataclass(frozen=True, slots=True)
class Workload:
    """One round. `stores`: engines that keep images as containerd does. `at_hand`: layers can be read one by one.

    `mounting`: a layer-mounter shows layers to ranges that have an agent. `compressed`: the registry has the layer that
    images share compressed.
    """

    asks: tuple[Ask, ...]
    nemesis_faults: tuple[NemesisEvent, ...] = ()
    settings: Settings = field(default_factory=lambda: round_settings(2))
    stores: tuple[tuple[str, Store], ...] = ()
    at_hand: bool = True
    mounting: bool = False
    compressed: bool = False


def round_settings(pulls_per_host: int, *, compressed: bool = False) -> Settings:
    """Patient enough for every fault, and not more, so that a round is short."""
    return msgspec.structs.replace(
        SETTINGS,
        layer_codec="zstd" if compressed else "raw",
        extractions_limit=pulls_per_host,
        pulls_per_range_limit=3,
        agent_grace_seconds=120.0,
        stall_seconds=15.0,
        large_image_bytes=200_000,
    )


def rolled(dice: random.Random) -> Workload:
    """A workload drawn at random."""
    moment, asks = 0.0, list[Ask]()
    for _ in range(DEPLOYMENTS):
        moment += dice.uniform(0.0, 4.0)
        asks.append(_ask(dice, moment))
    end, moment, nemesis_faults = dice.uniform(20.0, ROUND_SECONDS), 0.0, list[NemesisEvent]()
    while (moment := moment + dice.uniform(0.1, 1.5)) < end:
        nemesis_faults.append(NemesisEvent(moment, dice.choice(NEMESIS_FAULTS), dice.choice(RANGES), dice.random()))
    if dice.random() < 0.5:  # much goes by tar
        nemesis_faults.append(NemesisEvent(dice.uniform(0.0, 15.0), "registry down", "", dice.random()))
    compressed = moment % 0.1 < 0.03  # no roll of its own: that would change what every seed stands for
    places = [place for place in ("host", "r1") if dice.random() < 0.3]
    return Workload(
        asks=tuple(asks),
        nemesis_faults=tuple(nemesis_faults),
        settings=round_settings(dice.choice((1, 2, 8)), compressed=compressed),
        stores=tuple((place, "containerd") for place in places),
        at_hand=dice.random() < 0.7,
        mounting=dice.random() < 0.4,
        compressed=compressed,
    )


def _ask(dice: random.Random, moment: float) -> Ask:
    return Ask(
        at=moment,
        range_id=dice.choice(RANGES),
        images=tuple(dice.sample(range(IMAGES), dice.randint(1, IMAGES))),
        priority=dice.choice((0, 5, 5, 5, 9)),
        cancel_after=dice.uniform(0.0, 6.0) if dice.random() < 0.1 else None,
        retry_after=dice.uniform(5.0, 40.0) if dice.random() < 0.2 else None,
        planned=dice.random() < 0.1,
    )
