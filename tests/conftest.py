"""Real servers for tests, started when the first test asks for them and shared by the whole run.

A test that stops, kills or pauses a shared server brings it back itself. Keys and names are kept apart by
`key_prefix` and `unique`, so tests do not clean up after one another.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.laboratory import EngineServer, Lab, RedisServer, RegistryServer


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The laboratory all shared servers live in."""
    with Lab(tmp_path_factory.mktemp("lab")) as laboratory:
        yield laboratory


@pytest.fixture(scope="session")
def redis_server(lab: Lab) -> RedisServer:
    """A Redis with an append-only file and no eviction."""
    return lab.redis()


@pytest.fixture(scope="session")
def registry_server(lab: Lab) -> RegistryServer:
    """A registry with deletion enabled."""
    return lab.registry()


@pytest.fixture(scope="session")
def host_engine_server(lab: Lab) -> EngineServer:
    """The engine images are built on."""
    return lab.engine("host")


@pytest.fixture(scope="session")
def range_engine_servers(lab: Lab) -> tuple[EngineServer, EngineServer]:
    """Two engines, as two ranges have them."""
    return lab.engine("range-1"), lab.engine("range-2")


ENGINE_KINDS = {
    "machine": (None, False),
    "26.1": ("26.1", False),
    "28.5": ("28.5", False),
    "28.5-containerd": ("28.5", True),
}
"""Every kind of engine a range may have: version (None: the machine's own, 20.10 on Debian 12), containerd store."""


@pytest.fixture(scope="session")
def engine_servers(lab: Lab) -> Callable[[str], EngineServer]:
    """Gives the engine of a kind, started at the first call."""

    @cache
    def start(kind: str) -> EngineServer:
        version, containerd_store = ENGINE_KINDS[kind]
        return lab.engine(f"kind-{kind}", version=version, containerd_store=containerd_store)

    return start


@pytest.fixture(scope="session", params=ENGINE_KINDS)
def any_engine_server(request: pytest.FixtureRequest, engine_servers: Callable[[str], EngineServer]) -> EngineServer:
    """One engine of each kind in turn: the test runs once per kind."""
    return engine_servers(request.param)


@pytest.fixture(scope="session")
def base_image_tar(lab: Lab) -> Path:
    """A root file system of 2.5 MB with a shell, for `docker import`."""
    return lab.base_image_tar()


@pytest.fixture
def unique() -> str:
    """A word no other test has: for names of repositories, ranges and keys."""
    return uuid.uuid4().hex[:12]


@pytest.fixture
def key_prefix(unique: str) -> str:
    """A Redis key prefix of this test's own."""
    return f"test-{unique}"
