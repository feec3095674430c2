"""The config that the registry still has: taken where it is whole, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.images.manifests import sha256
from services.errors import LayerUnreadable
from services.registry_pusher.recorded_config import RecordedConfig
from tests.images import tar_of
from tests.unit.services.twins import chunks


async def test_a_config_is_given_only_where_it_is_the_image_s() -> None:
    """One that is gone, or has other bytes, is none; and layers are never read from the registry."""
    registry, engine = MemoryRegistry(), MemoryEngine()
    image = engine.add_image("web:1", [tar_of({"f": b"1"})])
    config = engine.config(image.local_id)
    source = RecordedConfig(registry, "library/web", image.local_id)
    with pytest.raises(LayerUnreadable, match="no blob"):
        await source.config(image)
    await registry.put_blob("library/web", sha256(config), len(config), chunks(config))
    assert await source.config(replace(image, diff_ids=())) == config
    with pytest.raises(LayerUnreadable, match="not read from the registry"):
        async with source.layer(image, image.diff_ids[0]):
            pass
    await registry.put_blob("library/web", sha256(b"{}"), 2, chunks(b"{}"))
    assert await source.size(image, image.diff_ids[0]) is None
    assert source.name == "registry"
