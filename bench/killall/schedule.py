"""Kill schedule: every role, at the stages of a deployment in which it has something to lose.

A moment is recognised by what can be seen from outside: messages on the streams, the engine's own folders, and relays
that stand still in the middle of a layer or an archive (`deploy.lab.Valve`). The agent pool drives a range of its own,
which has no agent and is reached over TCP.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

BY_REGISTRY = ("requested", "pushing", "pushed", "pull asked", "pulling", "extracting", "pulled")
"""Moments while an image comes through the registry, in their order: `pushing` and `pulling` are in the middle of a
layer, `extracting` is while the engine unpacks one, `pulled` after the agent's answer and before the outcome."""

BY_TAR = ("requested", "tar asked", "load offered", "loading", "unpacking", "loaded")
"""Moments while the registry is unavailable: `loading` is in the middle of the archive."""

BEFORE_ACCEPTANCE = ("posting", "posted")
"""Moments of a request over HTTP: before Redis has heard of it, and when it has but the client was not told."""

_REGISTRY_VICTIMS = {
    "posting": ("api", "api"),
    "posted": ("api", "api"),
    "requested": ("deployer", "registry-pusher", "agent", "redis", "host-engine"),
    "pushing": ("registry-pusher", "registry", "deployer", "redis", "host-engine", "tracker", "registry-pusher"),
    "pushed": ("deployer", "registry-pusher", "registry"),
    "pull asked": ("deployer", "agent", "redis", "agent-pool"),
    "pulling": ("agent", "registry", "range-engine", "deployer", "redis", "tracker", "agent", *2 * ("agent-pool",)),
    "extracting": ("range-engine", "agent", "deployer", "redis", "registry", "agent-pool"),
    "pulled": ("deployer", "redis", "agent"),
}
_TAR_VICTIMS = {
    "requested": ("deployer", "tar-server", "host-engine"),
    "tar asked": ("deployer", "tar-server", "agent"),
    "load offered": ("tar-server", "agent", "deployer", "host-engine"),
    "loading": (
        *("tar-server", "agent", "range-engine", "redis", "deployer", "host-engine", "tracker", "tar-server"),
        *("agent-pool", "agent-pool"),
    ),
    "unpacking": ("range-engine", "agent", "redis", "deployer", "agent-pool"),
    "loaded": ("deployer", "redis", "agent"),
}


@dataclass(frozen=True, slots=True)
class Kill:
    """`victim` is to die at `moment` of a deployment; `by_tar`: the registry is unavailable all the while."""

    victim: str
    moment: str
    by_tar: bool


PLAN = tuple(
    Kill(victim, moment, by_tar)
    for by_tar, victims in ((False, _REGISTRY_VICTIMS), (True, _TAR_VICTIMS))
    for moment, several in victims.items()
    for victim in several
)
VICTIMS = tuple(dict.fromkeys(kill.victim for kill in PLAN))


def planned(only: str | None, seed: int) -> Iterator[Kill]:
    """The plan, or one role's part of it, again and again, each time in another order."""
    chosen = [kill for kill in PLAN if only in (None, kill.victim)]
    source = random.Random(seed)
    for _ in itertools.count():
        source.shuffle(chosen)
        yield from chosen
