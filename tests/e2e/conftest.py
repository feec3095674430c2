"""The whole system on real engines, started once for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.lab import EngineServer, Lab, RedisServer, RegistryServer, Valve
from deploy.lab.role_server import RoleServer
from deploy.lab.system import System
from tests.e2e.scene import BASE, Scene


@pytest.fixture(scope="session")
def valve(registry_server: RegistryServer) -> Iterator[Valve]:
    """What stands between ranges and the registry: can be shut in the middle of a pull."""
    with Valve(registry_server.port) as relay:
        yield relay


@pytest.fixture(scope="session")
def engines(
    host_engine_server: EngineServer, range_engine_servers: tuple[EngineServer, EngineServer]
) -> dict[str, EngineServer]:
    """The host's engine, then one per range."""
    return {engine.name: engine for engine in (host_engine_server, *range_engine_servers)}


@pytest.fixture(scope="session")
def system(
    lab: Lab, redis_server: RedisServer, registry_server: RegistryServer, valve: Valve, engines: dict[str, EngineServer]
) -> System:
    """Services and agents over the shared servers, told to lose patience sooner than in earnest."""
    host, *ranges = engines.values()
    made = System(
        lab=lab,
        redis=redis_server,
        registry=registry_server,
        host=host,
        ranges={engine.name: engine for engine in ranges},
        prefix="e2e",
        settings={
            "registry_address": valve.address,
            "lease_seconds": 5,
            "stall_seconds": 15,
            "agent_grace_seconds": 2,
        },
    )
    made.host.docker("import", str(lab.base_image_tar()), BASE)
    return made


@pytest.fixture(scope="session")
def agents(system: System) -> dict[str, RoleServer]:
    """Each range's agent, after the services."""
    system.services()
    return {range_id: system.agent(range_id) for range_id in system.ranges}


@pytest.fixture
def scene(system: System, agents: dict[str, RoleServer], valve: Valve, tmp_path: Path, unique: str) -> Iterator[Scene]:
    """One test's view of the system: names of its own, and the log book from now on. Puts right what it broke."""
    with system.logbook() as book:
        yield Scene(system=system, book=book, valve=valve, folder=tmp_path, name=unique, mark=book.mark())
    valve.open()
    for server in (system.registry, system.host, *system.ranges.values(), *agents.values()):
        server.resume()
        server.start()
