"""The whole system on real engines, started once for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.mounted import mounted, mounted_system
from tests.e2e.narrow import NARROW, Lines, NarrowScene
from tests.e2e.scene import BASE, Scene
from tests.laboratory import EngineServer, Lab, RedisServer, RegistryServer, RoleServer, System, Valve, free_port

__all__ = ["mounted", "mounted_system"]  # fixtures of their own module


@pytest.fixture(scope="package")
def valve(registry_server: RegistryServer) -> Iterator[Valve]:
    """What stands between ranges and the registry: can be shut in the middle of a pull."""
    with Valve(registry_server.port) as relay:
        yield relay


@pytest.fixture(scope="package")
def host(lab: Lab, host_engine_server: EngineServer) -> EngineServer:
    """The host's engine, with what images are built on here."""
    host_engine_server.docker("import", str(lab.base_image_tar()), BASE)
    return host_engine_server


@pytest.fixture(scope="package")
def engines(host: EngineServer, range_engine_servers: tuple[EngineServer, EngineServer]) -> dict[str, EngineServer]:
    """The host's engine, then one per range."""
    return {engine.name: engine for engine in (host, *range_engine_servers)}


@pytest.fixture(scope="package")
def system(
    lab: Lab, redis_server: RedisServer, registry_server: RegistryServer, valve: Valve, engines: dict[str, EngineServer]
) -> System:
    """Services and agents over the shared servers, told to lose patience sooner than in earnest."""
    host, *ranges = engines.values()
    return System(
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


@pytest.fixture(scope="package")
def agents(system: System) -> Iterator[dict[str, RoleServer]]:
    """Each range's agent, after the services. They end with this folder: idle ones would slow the tests after it."""
    services = system.services()
    agents = {range_id: system.agent(range_id) for range_id in system.ranges}
    yield agents
    for server in (*agents.values(), services):
        server.stop()


@pytest.fixture
def scene(system: System, agents: dict[str, RoleServer], valve: Valve, tmp_path: Path, unique: str) -> Iterator[Scene]:
    """One test's view of the system: names of its own, and the log book from now on. Puts right what it broke."""
    with system.logbook() as book:
        yield Scene(system=system, book=book, valve=valve, folder=tmp_path, name=unique, mark=book.mark())
    valve.open()
    for server in (system.registry, system.host, *system.ranges.values(), *agents.values()):
        server.resume()
        server.start()


# ---- one transfer at a time, over lines that can be slow ------------------------------------------------------------


@pytest.fixture(scope="package")
def lines(registry_server: RegistryServer, valve: Valve) -> Iterator[Lines]:
    """What can be slowed down: into the registry, out of it, and out of the tar server."""
    tar_port = free_port()
    with Valve(registry_server.port, uploads=True) as push, Valve(tar_port) as tar:
        yield Lines(push=push, pull=valve, tar=tar, tar_port=tar_port)


@pytest.fixture(scope="package")
def narrow_engines(
    range_engine_servers: tuple[EngineServer, EngineServer], engine_servers: Callable[[str], EngineServer]
) -> dict[str, EngineServer]:
    """One range on each kind of store."""
    return dict(zip(NARROW, (range_engine_servers[0], engine_servers("28.5-containerd")), strict=True))


@pytest.fixture(scope="package")
def narrow_system(system: System, lines: Lines, narrow_engines: dict[str, EngineServer]) -> System:
    """Services of their own on the same servers, with one slot on the whole host."""
    return System(
        lab=system.lab,
        redis=system.redis,
        registry=system.registry,
        host=system.host,
        ranges=narrow_engines,
        prefix="narrow",
        tar_port=lines.tar_port,
        settings={
            "registry_url": f"http://{lines.push.address}",
            "registry_address": lines.pull.address,
            "tar_url": f"http://{lines.tar.address}",
            "spool_folder": system.lab.folder / "spool-narrow",
            "extractions_limit": 1,
        },
    )


@pytest.fixture(scope="package")
def narrow_services(narrow_system: System) -> Iterator[RoleServer]:
    """The host's side, and the agents."""
    services = narrow_system.services(name="narrow-services")
    agents = [narrow_system.agent(range_id) for range_id in narrow_system.ranges]
    yield services
    for server in (*agents, services):
        server.stop()


@pytest.fixture
def narrow(
    narrow_system: System, narrow_services: RoleServer, lines: Lines, tmp_path: Path, unique: str
) -> Iterator[NarrowScene]:
    """As `scene`, where one transfer keeps all others waiting."""
    with narrow_system.logbook() as book:
        made = NarrowScene(
            system=narrow_system,
            book=book,
            valve=lines.pull,
            lines=lines,
            services=narrow_services,
            folder=tmp_path,
            name=unique,
            mark=book.mark(),
        )
        made.wait_for_api()
        yield made
    lines.open()
    for server in (narrow_system.registry, narrow_services):
        server.start()
