"""Estimate of an archive's size, compared with what a real engine's `docker save` brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.adapters.engine import DockerEngine
from services.adapters.memory_registry import MemoryRegistry
from services.adapters.save_stream import SaveStream
from services.core.images.manifests import sha256
from services.tar_server.image_reader import ImageReader
from tests.images import config_of, tar_of
from tests.integration.test_layer_sources import load
from tests.laboratory import EngineServer

pytestmark = pytest.mark.real


async def test_what_the_engine_says_of_an_image_bounds_its_archive(
    any_engine_server: EngineServer, unique: str, tmp_path: Path
) -> None:
    """Layers whose size nobody knows beforehand: never less than the sure room, and within the likely one."""
    layers = [tar_of({f"t/{unique}-{number}": bytes([number]) * 3_000_000}) for number in range(2)]
    name = f"docker.io/test/{unique}:1"
    async with DockerEngine.open(any_engine_server.url) as engine:
        await load(engine, name, layers)
        reader = ImageReader(engine=engine, sources=[SaveStream(engine, tmp_path)], registry=MemoryRegistry())
        held = [sha256(layer) for layer in layers]
        image = await reader.open(name, sha256(config_of(held)), held)
        assert [image.sizes[diff_id] for diff_id in held] == [None, None]
        room = image.room(held)
        brought = 0
        async for layer in image.layers(held):
            brought += sum([len(chunk) async for chunk in layer.chunks])
    assert brought == sum(map(len, layers))
    assert room.least_bytes <= brought <= room.likely_bytes
    assert image.local is not None
    assert (room.least_bytes > 0) == (image.local.image_id is not None)
