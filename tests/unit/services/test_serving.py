"""A process that serves roles, on fakes of everything outside."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from events.envelope import Envelope
from events.messages import (
    DeploymentFailed,
    DeploymentRequested,
    DeploymentSucceeded,
    ImageBuilt,
    ImagePushed,
)
from services.adapters.memory_archives import tar_of
from services.adapters.memory_engine import MemoryEngine
from services.errors import BadInput
from services.runtime.shutdown import Stop
from services.serving import serve
from services.settings import Settings
from tests.unit.services.twins import Cluster


@pytest.fixture
def world() -> Cluster:
    """Twins of everything outside."""
    return Cluster()


def _settings(tmp_path: Path, **more: Any) -> Settings:
    def address() -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{probe.getsockname()[1]}"

    return Settings(
        key_prefix="test",
        api_listen=address(),
        tar_listen=address(),
        spool_folder=str(tmp_path),
        drain_seconds=1,
        **more,
    )


async def _until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(20):
        while not (found := await condition()):  # noqa: ASYNC110 - what is waited for is in the fakes, without an event
            await asyncio.sleep(0.01)
    return found


async def test_all_roles_of_the_host_run_together(world: Cluster, tmp_path: Path) -> None:
    """What is said on the bus is handled; asking to stop ends it."""
    stop = Stop()
    image = world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    assert image.image_id is not None
    running = asyncio.create_task(serve(_settings(tmp_path), ["all"], stop, adapters=world.adapters))
    message = ImageBuilt(reference="docker.io/library/web:1", image_id=image.image_id)
    await world.bus.publish("test:images", Envelope(message=message, source="t", subject="web:1"))

    async def pushed() -> bool:
        return any(isinstance(one, ImagePushed) for one in await world.said("test:images"))

    assert await _until(pushed)
    stop.ask()
    async with asyncio.timeout(20):
        await running
    assert await world.registry.manifest("library/web", "1") is not None


@pytest.mark.parametrize("has_storage", [True, False])
async def test_all_has_a_collector_where_it_can_work(world: Cluster, tmp_path: Path, has_storage: bool) -> None:
    """Elsewhere a line of the log says what is missing, and everything else runs."""
    storage, stop = tmp_path / "storage", Stop()
    storage.mkdir()
    settings = _settings(tmp_path, registry_storage=str(storage) if has_storage else "", collect_seconds=0)
    with structlog.testing.capture_logs() as said:
        running = asyncio.create_task(serve(settings, ["all"], stop, adapters=world.adapters))

        async def heard() -> object:
            return await world.bus.members("test:index:roles")

        served = {name.partition(":")[0] for name in await _until(heard)}
        stop.ask()
        async with asyncio.timeout(20):
            await running
    why = [line["why"] for line in said if "no collector" in line["event"]]
    assert ("collector" in served, bool(why)) == (has_storage, not has_storage)
    assert "tracker" in served


async def test_a_range_without_an_agent_is_driven_from_here(world: Cluster, tmp_path: Path) -> None:
    """A deployment that gives the engine's address succeeds with nobody in the range."""
    there = MemoryEngine(registries={"registry:5000": world.registry}, engine_id="there")

    def by_address(_: Settings, url: str) -> nullcontext[MemoryEngine]:
        return nullcontext(there if url == "tcp://range:2375" else world.engine)

    adapters = replace(world.adapters, engine=by_address)
    world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    stop = Stop()
    settings = _settings(tmp_path, registry_address="registry:5000", beat_seconds=0.1)
    running = asyncio.create_task(serve(settings, ["all"], stop, adapters=adapters))
    request = DeploymentRequested(
        deployment_id="d1", range_id="r1", images=("docker.io/library/web:1",), engine_url="tcp://range:2375"
    )
    await world.bus.publish("test:deployments", Envelope(message=request, source="t", subject="r1"))

    async def ended() -> list[object]:
        said = await world.said("test:deployments")
        return [one for one in said if isinstance(one, DeploymentSucceeded | DeploymentFailed)]

    (outcome,) = await _until(ended)
    stop.ask()
    async with asyncio.timeout(20):
        await running
    assert isinstance(outcome, DeploymentSucceeded), outcome
    assert await there.inspect("web:1") is not None


async def test_an_agent_needs_its_range(world: Cluster, tmp_path: Path) -> None:
    """Told before anything is opened or waited for."""
    with pytest.raises(BadInput, match="CYROID_RANGE_ID"):
        await serve(_settings(tmp_path), ["agent"], Stop())


async def test_an_agent_runs_with_the_keys_of_its_range_only(world: Cluster, tmp_path: Path) -> None:
    """Its user on Redis may read nothing else, so nothing else is touched at the start."""
    read: list[str] = []
    load, beats = world.bus.load, world.bus.beats

    async def noting(key: str) -> Any:
        read.append(key)
        return await load(key)

    async def noting_beats(keys: Sequence[str]) -> Any:
        read.extend(keys)
        return await beats(keys)

    world.bus.load = noting  # type: ignore[method-assign]  # to see which keys are read
    world.bus.beats = noting_beats  # type: ignore[method-assign]
    stop = Stop()
    running = asyncio.create_task(
        serve(_settings(tmp_path, range_id="r1", beat_seconds=0.05), ["agent"], stop, adapters=world.adapters)
    )

    async def alive() -> bool:
        return (await beats(["test:range:r1:alive"]))[0] is not None

    assert await _until(alive)
    stop.ask()
    async with asyncio.timeout(20):
        await running
    assert read
    assert all(key.startswith("test:range:r1:") for key in read)


@pytest.mark.parametrize(
    ("role", "more", "told"),
    [
        ("api", {"engine_networks": "999.1.1.1/24"}, "CYROID_ENGINE_NETWORKS"),
        ("api", {"api_listen": "0.0.0.0:8070"}, "CYROID_API_AUTH"),
        ("deployer", {"registry_auth": "token"}, "CYROID_REGISTRY_PULL_KEY"),
        ("collector", {}, "CYROID_REGISTRY_STORAGE"),
    ],
)
async def test_settings_that_contradict_stop_the_start(
    world: Cluster, tmp_path: Path, role: str, more: dict[str, str], told: str
) -> None:
    """Before Redis is waited for."""
    settings = msgspec.structs.replace(_settings(tmp_path), **more)
    with pytest.raises(BadInput, match=told):
        await serve(settings, [role], adapters=world.adapters)
