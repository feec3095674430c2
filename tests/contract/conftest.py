"""Subjects of the conformance suites."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.adapters.engine import DockerEngine
from services.adapters.memory_engine import MemoryEngine
from tests.conftest import ENGINE_KINDS
from tests.contract.engine_subject import Subject


@pytest.fixture(params=["memory", "memory-containerd", *ENGINE_KINDS])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each engine there is."""
    if request.param in ENGINE_KINDS:
        url = request.getfixturevalue("engine_servers")(request.param).url
        async with DockerEngine.open(url) as engine:
            yield Subject(engine, url)
    else:
        yield Subject(MemoryEngine(store="classic" if request.param == "memory" else "containerd"), None)
