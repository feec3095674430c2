"""Builds small real images for tests, and inspects engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from services.core.images.image import EngineImage
from services.ports import Chunks, Engine
from tests.images import tar_of

BASE = "docker.io/test/base:1"


async def pieces(content: bytes, size: int = 1 << 20) -> AsyncIterator[bytes]:
    """`content` in chunks."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def file_chunks(path: Path) -> AsyncIterator[bytes]:
    """A file in chunks."""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


async def ensure_base(engine: Engine, root_tar: Path) -> None:
    """The laboratory's base image under `BASE`."""
    if await engine.inspect(BASE) is None:
        async with engine.import_root(file_chunks(root_tar), reference=BASE) as lines:
            async for _ in lines:
                pass


async def build(engine: Engine, reference: str, *layers: Mapping[str, bytes], base: str = BASE) -> EngineImage:
    """An image with one layer of files per mapping, on `base`."""
    files: dict[str, bytes] = {}
    steps = [f"FROM {base}"]
    for number, layer in enumerate(layers):
        files.update({f"{number}/{name}": content for name, content in layer.items()})
        steps.append(f"COPY {number}/ /data/")
    context: Chunks = pieces(tar_of({"Dockerfile": "\n".join(steps).encode(), **files}))
    async with engine.build(context, reference=reference) as log:
        async for _ in log:
            pass
    image = await engine.inspect(reference)
    assert image is not None
    return image


async def pull(engine: Engine, source: str) -> None:
    """Pull to the end."""
    async with engine.pull(source) as lines:
        async for _ in lines:
            pass
