"""Counting the registry, on its fake."""

from __future__ import annotations

from pathlib import Path

from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.queries.statistics import Statistics
from tests.unit.services.layer_twins import INDEX, layer, twin_push


async def test_a_tag_that_names_no_image_leaves_the_numbers_healthy() -> None:
    """It counts as a tag; the bytes are those of the images."""
    registry, engine = MemoryRegistry(), MemoryEngine()
    engine.add_image("team/app:1", [layer("a"), layer("b")])
    pushed = await twin_push(engine, registry).push("team/app:1")
    before = await Statistics(registry=registry).get()
    registry.foreign["team/app", "multi"] = INDEX
    after = await Statistics(registry=registry).get()
    assert (after.healthy, after.error) == (True, None)
    assert (before.images, after.images) == (1, 2)
    assert after.logical_bytes == before.logical_bytes == pushed.sent_bytes


async def test_the_storage_is_measured_where_it_is_mounted(tmp_path: Path) -> None:
    """The disk's own number, and what is free."""
    (tmp_path / "blob").write_bytes(bytes(100_000))
    stats = await Statistics(registry=MemoryRegistry(), storage=str(tmp_path)).get()
    assert stats.storage_measured
    assert stats.storage_used_bytes >= 100_000
    assert stats.storage_free_bytes
    missing = await Statistics(registry=MemoryRegistry(), storage=str(tmp_path / "none")).get()
    assert not missing.storage_measured
