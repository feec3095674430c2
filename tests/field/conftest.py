"""An importer on an engine of each kind, and the tools of this machine."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.adapters.engine import DockerEngine
from services.content.decompression import unpacked
from services.core.images.image import EngineImage
from services.ingest.archive_flow import Archive
from services.resources import open_resources
from services.settings import Settings
from tests.field.tools import Tools
from tests.integration.engines import pieces
from tests.laboratory import EngineServer, RedisServer


@dataclass(frozen=True, slots=True)
class Host:
    """A host with an engine: imports archives, and looks at what its engine has, with a client of its own."""

    settings: Settings
    server: EngineServer
    engine: DockerEngine

    async def imports(self, archive: bytes, *, name: str | None = None) -> list[EngineImage]:
        """The images that were announced, in order, as the engine has them. Raises what the importer raises."""
        async with open_resources(self.settings) as resources:
            importer = await resources.importer()
            announced = await importer.import_archive(
                Archive(chunks=unpacked(pieces(archive), "a.tar"), origin="a.tar", reference=name)
            )
        found = [await self.engine.inspect(message.reference) for message in announced]
        images = [image for image in found if image is not None]
        assert len(images) == len(announced)
        for message, image in zip(announced, images, strict=True):
            assert message.reference in image.references
        return images

    async def ids(self) -> set[str]:
        """All images of the engine."""
        return {image.local_id for image in await self.engine.images()}


def content_of(server: EngineServer, image: str, path: str) -> bytes:
    """A file of an image, as `docker cp` gives it out of a container that never ran."""
    container = server.docker("create", image, "/none").strip()
    try:
        copied = subprocess.run(
            ["docker", "-H", server.url, "cp", f"{container}:/{path}", "-"], check=True, capture_output=True, timeout=60
        ).stdout
    finally:
        server.docker("rm", container)
    with tarfile.open(fileobj=io.BytesIO(copied)) as tar:
        file = tar.extractfile(tar.getmembers()[0])
        assert file is not None
        return file.read()


@pytest.fixture
async def host(any_engine_server: EngineServer, redis_server: RedisServer, key_prefix: str) -> AsyncIterator[Host]:
    """One of each kind of engine in turn."""
    async for one in opened(any_engine_server, redis_server, key_prefix):
        yield one


@pytest.fixture
async def containerd_host(
    engine_servers: Callable[[str], EngineServer], redis_server: RedisServer, key_prefix: str
) -> AsyncIterator[Host]:
    """One on containerd's image store, which takes seconds to list what it has."""
    async for one in opened(engine_servers("28.5-containerd"), redis_server, key_prefix):
        yield one


@pytest.fixture
async def old_host(
    engine_servers: Callable[[str], EngineServer], redis_server: RedisServer, key_prefix: str
) -> AsyncIterator[Host]:
    """The machine's own engine, for what does not depend on the engine."""
    async for one in opened(engine_servers("machine"), redis_server, key_prefix):
        yield one


async def opened(server: EngineServer, redis: RedisServer, prefix: str) -> AsyncIterator[Host]:
    settings = Settings(
        redis_url=redis.url, key_prefix=prefix, host_engine_url=server.url, engine_root=str(server.root)
    )
    async with DockerEngine.open(server.url) as engine:
        yield Host(settings, server, engine)


@pytest.fixture
def tools() -> Iterator[Tools]:
    """podman, skopeo and buildah, with empty storage in a folder of a short name: their sockets' names are bounded."""
    with tempfile.TemporaryDirectory(prefix="tools-") as folder:
        yield Tools(Path(folder))
