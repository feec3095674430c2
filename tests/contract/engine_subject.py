"""The engine under test, and what tests do with it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from services.adapters.engine import DockerEngine
from services.adapters.memory_engine import MemoryEngine
from services.core.images.image import EngineImage
from services.ports import Chunks, Engine, EngineProgress
from tests.images import tar_of


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine under test, and how to do what the port cannot: make a container, look at one that is away."""

    engine: Engine
    url: str | None

    def container(self, name: str, reference: str, files: Mapping[str, bytes]) -> None:
        """A container of that image, not running, with files changed in it."""
        if isinstance(self.engine, MemoryEngine):
            self.engine.add_container(name, reference, files)
            return
        assert self.url is not None
        docker = ["docker", "-H", self.url]
        subprocess.run([*docker, "create", "--name", name, reference, "true"], check=True, capture_output=True)
        subprocess.run([*docker, "cp", "-", f"{name}:/"], input=tar_of(files), check=True, capture_output=True)

    async def away(self, stack: AsyncExitStack) -> Engine:
        """The same kind of engine, but none answers."""
        if self.url is None:
            engine = MemoryEngine()
            engine.away = True
            return engine
        return await stack.enter_async_context(DockerEngine.open("unix:///nonexistent/docker.sock"))


async def chunks(content: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    """Content as it would stream."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def statuses(progress: AsyncIterator[EngineProgress]) -> list[str]:
    """What the engine said while it worked."""
    return [line.status async for line in progress]


async def import_image(engine: Engine, name: str, layer: bytes) -> EngineImage:
    """A one-layer image, as `docker import` makes it."""
    async with engine.import_root(chunks(layer), reference=name) as progress:
        await statuses(progress)
    image = await engine.inspect(name)
    assert image is not None
    return image


async def build_image(engine: Engine, name: str, context: Mapping[str, bytes]) -> EngineImage:
    """An image from a Dockerfile."""
    async with engine.build(chunks(tar_of(context)), reference=name) as log:
        assert [line async for line in log]
    image = await engine.inspect(name)
    assert image is not None
    return image


async def saved(engine: Engine, names: Iterable[str]) -> bytes:
    """A whole `docker save`."""
    async with engine.save(list(names)) as archive:
        return b"".join([chunk async for chunk in archive])


async def load(engine: Engine, archive: bytes | Chunks) -> list[str]:
    """A whole `docker load`."""
    async with engine.load(chunks(archive) if isinstance(archive, bytes) else archive) as progress:
        return await statuses(progress)
