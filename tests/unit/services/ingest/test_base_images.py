"""Base images that were freed from the host's engine, before a build."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime

import pytest

from events.bus import IndexWrite, Outcome
from events.records import ANY
from services.adapters.memory_archives import tar_of
from services.core.builds.options import BuildOptions
from services.core.hosts.hosts import HostKeys
from services.core.images.read_model import ReadModelKeys, RegistryEntry
from services.errors import BuildFailed
from services.ingest.build import BuildService
from services.resources import open_resources
from services.runtime.heartbeat import HeartbeatSender, serving
from services.settings import Settings
from tests.simulation import eventually
from tests.unit.services.twins import Cluster, chunks

NAME = "docker.io/library/base:1"
CONTEXT = tar_of({"Dockerfile": b"FROM base:1\nCOPY a /a\n", "a": b"hello"})


@asynccontextmanager
async def _builds(world: Cluster, kind: str, *, host_id: str = "") -> AsyncIterator[BuildService]:
    entry = RegistryEntry(
        reference=NAME,
        repository="library/base",
        tag="1",
        manifest_digest="sha256:" + "a" * 64,
        image_id="sha256:" + "b" * 64,
        layers=1,
        size_bytes=1,
        pushed_at=datetime(2026, 1, 1, tzinfo=UTC),
        kind="image" if kind == "image" else "other",
    )
    await world.bus.commit(Outcome(records=(ReadModelKeys("test").image(NAME).write(entry, expected=ANY),)))
    async with open_resources(Settings(key_prefix="test", host_id=host_id), world.adapters) as opened:
        yield await opened.build()


async def test_a_base_that_cannot_be_brought_back_is_told_with_the_command() -> None:
    """Nothing is built, and the engine is not left to ask upstream for other content of that name."""
    world = Cluster()
    async with _builds(world, "image") as builds:
        with pytest.raises(
            BuildFailed, match=r"serve registry-pusher.*images fetch docker\.io/library/base:1"
        ) as found:
            await builds.build(chunks(CONTEXT), reference="web:1", origin="x")
    assert found.value.code == "base_not_fetched"
    assert await world.engine.inspect("web:1") is None


async def test_a_host_whose_registry_pusher_is_away_brings_nothing_back() -> None:
    """That of another host serves the role meanwhile; the command is told all the same."""
    world = Cluster()
    await world.bus.commit(Outcome(index=(IndexWrite(HostKeys("test").all, "here", 1.0),)))
    sender = HeartbeatSender(bus=world.bus, prefix="test", roles=["registry-pusher"], host="other", pid=1)
    beating = asyncio.create_task(sender.run())
    await eventually(lambda: serving(world.bus, "test"))
    async with _builds(world, "image", host_id="here") as builds:
        with pytest.raises(BuildFailed, match="host here is away") as found:
            await builds.build(chunks(CONTEXT), reference="web:1", origin="x")
    assert found.value.code == "base_not_fetched"
    beating.cancel()
    await asyncio.wait({beating})


@pytest.mark.parametrize("case", ["there", "other", "pull"])
async def test_other_builds_go_to_the_engine_as_they_are(case: str) -> None:
    """With a base that the engine has, that the registry has not, or that upstream is to be asked for."""
    world = Cluster()
    if case == "there":
        world.engine.add_image("base:1", [tar_of({"f": b"1"})])
    lines: list[str] = []
    options = BuildOptions(pull=case == "pull")
    async with _builds(world, "other" if case == "other" else "image") as builds:
        with (
            nullcontext() if case == "there" else pytest.raises(BuildFailed, match="No such image")
        ):  # it has no upstream
            await builds.build(chunks(CONTEXT), reference="web:1", origin="x", options=options, on_line=lines.append)
    assert not [line for line in lines if line.startswith("bringing")]
