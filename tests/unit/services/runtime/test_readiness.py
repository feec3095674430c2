"""Which dependencies answer, and whether the process can take work without the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from events.bus import BusError
from services.errors import RegistryUnavailable
from services.runtime import readiness as module
from services.runtime.metrics import REGISTRY
from services.runtime.readiness import Dependency, DependencyStatus, readiness


async def answers() -> None:
    """A dependency that is there."""


def refuses(problem: Exception) -> Callable[[], Awaitable[None]]:
    async def ping() -> None:
        raise problem

    return ping


async def test_all_dependencies_that_answer_are_ok() -> None:
    """Status ok, HTTP 200, and the gauge is 1."""
    found = await readiness({"redis": Dependency(answers), "engine": Dependency(answers, required=False)})
    assert (found.status, found.http_status) == ("ok", 200)
    assert found.dependencies == {"redis": DependencyStatus("ok"), "engine": DependencyStatus("ok")}
    assert REGISTRY.get_sample_value("cyroid_dependency_up", {"dependency": "redis"}) == 1


@pytest.mark.parametrize("problem", [BusError("no Redis"), RegistryUnavailable("no registry"), ConnectionError("gone")])
async def test_a_required_dependency_that_does_not_answer_makes_it_unavailable(problem: Exception) -> None:
    """HTTP 503 with the reason, and the gauge is 0."""
    found = await readiness({"redis": Dependency(refuses(problem)), "engine": Dependency(answers)})
    assert (found.status, found.http_status) == ("unavailable", 503)
    assert found.dependencies["redis"] == DependencyStatus("unavailable", str(problem))
    assert REGISTRY.get_sample_value("cyroid_dependency_up", {"dependency": "redis"}) == 0


async def test_another_dependency_that_does_not_answer_degrades_it() -> None:
    """The process goes on taking work: HTTP 200, and the reason is told."""
    away = Dependency(refuses(RegistryUnavailable("no registry")), required=False)
    found = await readiness({"redis": Dependency(answers), "registry": away})
    assert (found.status, found.http_status) == ("degraded", 200)
    assert found.dependencies["registry"].detail == "no registry"


async def test_a_dependency_that_hangs_is_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked within a bound, all at once."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)

    async def hangs() -> None:
        await asyncio.Event().wait()

    found = await readiness({"redis": Dependency(answers), "engine": Dependency(hangs)})
    assert found.dependencies["engine"].detail == "no answer within 0.01 seconds"


async def test_an_error_of_our_own_is_not_hidden() -> None:
    """Only what the outside does wrong counts as unavailable."""
    with pytest.raises(KeyError):
        await readiness({"redis": Dependency(refuses(KeyError("a mistake")))})
