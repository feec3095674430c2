"""Readiness: asks every dependency of a process, all of them at once and each within a bound.

`/readyz` answers with a `Readiness`; the same answers are the metric `cyroid_dependency_up`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from events.bus import BusClient, BusError, HandlingError
from services.runtime import metrics

PATIENCE_SECONDS = 3.0
Ping = Callable[[], Awaitable[None]]


async def ping_bus(bus: BusClient, prefix: str) -> None:
    """Returns when Redis answers: reads a key below `prefix` that nobody writes. Raises BusError."""
    await bus.load(f"{prefix}:ping")


@dataclass(frozen=True, slots=True)
class Dependency:
    """What a process needs of the outside. `ping` returns when it answers and raises when it does not.

    Without one that is `required` the process can do nothing. Without another one it can: a deployment goes by tar
    while the registry is unavailable, and work that needs the host's engine waits for it.
    """

    ping: Ping
    required: bool = True


class DependencyStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether one dependency answered; `detail` says why not."""

    status: Literal["ok", "unavailable"]
    detail: str = ""


class Readiness(msgspec.Struct, frozen=True):
    """What `/readyz` answers. `degraded`: only dependencies that are not required did not answer."""

    status: Literal["ok", "degraded", "unavailable", "starting", "stopping"]
    dependencies: dict[str, DependencyStatus]

    @property
    def http_status(self) -> int:
        """200 while the process can take work, 503 otherwise."""
        return 200 if self.status in {"ok", "degraded"} else 503


async def readiness(dependencies: Mapping[str, Dependency]) -> Readiness:
    """Ask all dependencies; takes no longer than `PATIENCE_SECONDS`."""
    problems = await asyncio.gather(*(_problem(dependency.ping) for dependency in dependencies.values()))
    statuses: dict[str, DependencyStatus] = {}
    for name, problem in zip(dependencies, problems, strict=True):
        metrics.dependency_up.labels(dependency=name).set(problem is None)
        statuses[name] = DependencyStatus("ok") if problem is None else DependencyStatus("unavailable", problem)
    missing = {name for name, status in statuses.items() if status.status != "ok"}
    if any(dependencies[name].required for name in missing):
        return Readiness("unavailable", statuses)
    return Readiness("degraded" if missing else "ok", statuses)


async def _problem(ping: Ping) -> str | None:
    """Why a dependency is not available; None if it answered."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ping()
    except TimeoutError:
        return f"no answer within {PATIENCE_SECONDS:g} seconds"
    except (HandlingError, BusError, OSError) as problem:
        return str(problem)
    return None
