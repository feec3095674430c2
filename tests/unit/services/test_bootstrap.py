"""Composing and serving, with twins in the places of the outside."""

import asyncio
import inspect
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import structlog

from events.bus import NOTHING, Delivery, Outcome, Subscription
from events.envelope import Envelope
from events.messages import (
    DeploymentFailed,
    DeploymentRequested,
    DeploymentSucceeded,
    ImageBuilt,
    ImagePushed,
    PushRequested,
)
from services import bootstrap, parts
from services.adapters.memory_archives import tar_of
from services.adapters.memory_engine import MemoryEngine
from services.bootstrap import IN_A_RANGE, ROLES, chosen_roles, serve, traced
from services.cli import main
from services.doctor import checkup
from services.errors import BadInput
from services.settings import Settings
from services.stopping import Stop
from tests.unit.services.twins import World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Twins behind every door."""
    made = World()

    def opens(twin: object) -> Callable[..., Any]:
        @asynccontextmanager
        async def opened(*_: object) -> AsyncIterator[object]:
            yield twin

        return opened

    monkeypatch.setattr(parts, "open_bus", opens(made.bus))
    monkeypatch.setattr(parts, "open_engine", opens(made.engine))
    monkeypatch.setattr(parts, "open_registry", opens(made.registry))
    return made


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
        while not (found := await condition()):  # noqa: ASYNC110 - what is waited for is in the twins, without an event
            await asyncio.sleep(0.01)
    return found


async def test_all_roles_of_the_host_run_together(world: World, tmp_path: Path) -> None:
    """What is said on the bus is handled; asking to stop ends it."""
    stop = Stop()
    image = world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    assert image.image_id is not None
    running = asyncio.create_task(serve(_settings(tmp_path), ["all"], stop))
    message = ImageBuilt(reference="docker.io/library/web:1", image_id=image.image_id)
    await world.bus.publish("test:images", Envelope(message=message, source="t", subject="web:1"))

    async def pushed() -> bool:
        return any(isinstance(one, ImagePushed) for one in await world.said("test:images"))

    assert await _until(pushed)
    stop.ask()
    async with asyncio.timeout(20):
        await running
    assert await world.registry.manifest("library/web", "1") is not None


async def test_a_range_without_an_agent_is_driven_from_here(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment that gives the engine's address succeeds with nobody in the range."""
    there = MemoryEngine(registries={"registry:5000": world.registry}, engine_id="there")

    @asynccontextmanager
    async def by_address(_: Settings, url: str) -> AsyncIterator[MemoryEngine]:
        yield there if url == "tcp://range:2375" else world.engine

    monkeypatch.setattr(parts, "open_engine", by_address)
    world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    stop = Stop()
    settings = _settings(tmp_path, registry_address="registry:5000", beat_seconds=0.1)
    running = asyncio.create_task(serve(settings, ["all"], stop))
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


async def test_an_agent_needs_its_range(world: World, tmp_path: Path) -> None:
    """Told before anything is opened or waited for."""
    with pytest.raises(BadInput, match="CYROID_RANGE_ID"):
        await serve(_settings(tmp_path), ["agent"], Stop())


async def test_an_agent_runs_with_the_keys_of_its_range_only(world: World, tmp_path: Path) -> None:
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
    running = asyncio.create_task(serve(_settings(tmp_path, range_id="r1", beat_seconds=0.05), ["agent"], stop))

    async def alive() -> bool:
        return (await beats(["test:range:r1:alive"]))[0] is not None

    assert await _until(alive)
    stop.ask()
    async with asyncio.timeout(20):
        await running
    assert read
    assert all(key.startswith("test:range:r1:") for key in read)


def test_all_means_the_hosts_side() -> None:
    """The agent belongs to a range; names are taken once; an unknown one is told with those there are."""
    assert set(chosen_roles(["all"])) == set(ROLES) - IN_A_RANGE
    assert chosen_roles(["api", "api"]) == ["api"]
    with pytest.raises(BadInput, match="there is no role 'nope'; there are: api"):
        chosen_roles(["nope"])


def test_every_role_is_in_the_help() -> None:
    """`serve --help` says what each role does."""
    text = main.commands["serve"].help
    assert isinstance(main.commands["serve"], click.Command)
    assert text is not None
    told = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert set(ROLES) - told == set()


def test_every_setting_is_used() -> None:
    """A setting that nothing reads would be a promise without anybody to keep it."""
    source = "".join(inspect.getsource(module) for module in (bootstrap, parts, checkup))
    source += inspect.getsource(sys.modules["services.cli.serve"])
    unused = [name for name in msgspec.structs.fields(Settings) if f"settings.{name.name}" not in source]
    assert unused == []


async def test_a_handlers_lines_carry_its_entry() -> None:
    """The correlation id is bound while a handler runs, and gone afterwards."""
    seen: list[dict[str, Any]] = []

    async def handler(delivery: Delivery) -> Outcome:
        seen.append(dict(structlog.contextvars.get_contextvars()))
        return NOTHING

    envelope = Envelope(message=PushRequested(reference="a:1"), source="t", subject="a:1", correlation_id="c-1")
    subscription = Subscription(group="g", streams=tuple, handlers={PushRequested: handler}, dead_stream="d")
    await traced(subscription).handlers[PushRequested](Delivery(envelope, "s", "1-0"))
    assert seen == [{"correlation_id": "c-1", "entry": envelope.id}]
    assert structlog.contextvars.get_contextvars() == {}
