"""An installation whose ranges are shown mounted layers: one for all tests of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.machine.polling import poll
from events.messages import AgentStarted
from tests.e2e.scene import Scene
from tests.laboratory import EngineServer, Lab, RedisServer, RegistryServer, RoleServer, System, Valve, mkfs_erofs

#: Range → version of its engine (None: the machine's own, 20.10), and whether it is on containerd's store.
RANGES: dict[str, tuple[str | None, bool]] = {
    "m-28.5": ("28.5", True),
    "m-26.1": ("26.1", True),
    "m-28.5-classic": ("28.5", False),
    "m-20.10-classic": (None, False),
}


@pytest.fixture(scope="package")
def mounted_system(
    lab: Lab,
    redis_server: RedisServer,
    registry_server: RegistryServer,
    valve: Valve,
    host: EngineServer,
) -> Iterator[System]:
    """Services, a layer-mounter, and ranges on either store."""
    assert lab.layers.is_dir()  # made before the engines start: they see what is mounted below it afterwards
    ranges = {
        name: lab.engine(name, version=version, containerd_store=containerd, shown=lab.shown(name))
        for name, (version, containerd) in RANGES.items()
    }
    with mkfs_erofs(lab.cache) as program:
        system = System(
            lab=lab,
            redis=redis_server,
            registry=registry_server,
            host=host,
            ranges=ranges,
            prefix="mounted",
            mkfs_erofs=program,
            settings={
                "registry_address": valve.address,
                "registry_write_storage": registry_server.storage,
                "lease_seconds": 5,
                "spool_folder": lab.folder / "spool-m",
            },
        )
        servers: list[RoleServer] = [
            system.services(name="m-services"),
            system.services("layer-mounter", name="m-mounter"),
        ]
        servers += [system.agent(range_id) for range_id in ranges]
        yield system
        for server in (*reversed(servers), *ranges.values()):
            server.stop()


@pytest.fixture
def mounted(mounted_system: System, valve: Valve, tmp_path: Path, unique: str) -> Iterator[Scene]:
    """One test's view of it, as `scene`, once the layer-mounter and the agents are there."""
    with mounted_system.logbook() as book:
        scene = Scene(system=mounted_system, book=book, valve=valve, folder=tmp_path, name=unique, mark=book.mark())
        assert poll(lambda: _is_up(scene), seconds=60), logs_of(mounted_system)
        yield scene
    valve.open()


def logs_of(system: System) -> str:
    names = ("m-mounter", *(f"agent-{range_id}" for range_id in system.ranges))
    return "\n".join(system.lab.server(name).log_tail() for name in names)


def _is_up(scene: Scene) -> bool:
    """Every range announced itself with what it can do, and the layer-mounter beats."""
    outboxes = {scene.system.streams.outbox(range_id): "0-0" for range_id in scene.system.ranges}
    able = {m.range_id for m in scene.book.find(AgentStarted, outboxes, lambda m: m.mounts_layers)}
    return able == set(scene.system.ranges) and scene.book.mounts()
