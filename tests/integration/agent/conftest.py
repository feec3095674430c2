"""The site, once per test, on servers that all tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from events.redis.bus import RedisBus
from events.streams import Streams
from services.adapters.engine import DockerEngine
from services.adapters.registry import HttpRegistry
from services.tar_server.spool import SpoolFolder
from tests.integration.agent.site import Site
from tests.integration.engines import ensure_base
from tests.laboratory import EngineServer, RedisServer, RegistryServer


@asynccontextmanager
async def open_site(
    *,
    redis: RedisServer,
    registry: RegistryServer,
    host: EngineServer,
    range_engine: EngineServer,
    prefix: str,
    base: Path,
    spool: Path,
    spool_bytes: int = 1 << 30,
) -> AsyncIterator[Site]:
    streams = Streams(prefix)
    async with (
        RedisBus.open(redis.url, streams=streams) as bus,
        DockerEngine.open(host.url) as host_engine,
        DockerEngine.open(range_engine.url) as engine,
        HttpRegistry.open(registry.url) as client,
    ):
        await ensure_base(host_engine, base)
        yield Site(
            bus=bus,
            streams=streams,
            host=host_engine,
            host_root=host.root,
            engine=engine,
            engine_url=range_engine.url,
            registry=client,
            spool=SpoolFolder(spool, limit_bytes=spool_bytes, spare_bytes=0),
        )


@pytest.fixture
def range_engine_server(range_engine_servers: tuple[EngineServer, EngineServer]) -> EngineServer:
    """The engine of the range of `site`: of the machine's own version, unless a module has another one."""
    return range_engine_servers[0]


@pytest.fixture
async def site(  # noqa: PLR0917  pytest hands fixtures over by name
    redis_server: RedisServer,
    registry_server: RegistryServer,
    host_engine_server: EngineServer,
    range_engine_server: EngineServer,
    base_image_tar: Path,
    key_prefix: str,
    tmp_path: Path,
) -> AsyncIterator[Site]:
    """With one range."""
    async with open_site(
        redis=redis_server,
        registry=registry_server,
        host=host_engine_server,
        range_engine=range_engine_server,
        prefix=key_prefix,
        base=base_image_tar,
        spool=tmp_path / "spool",
    ) as opened:
        yield opened
