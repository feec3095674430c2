"""A copy of the storage folder that was taken in use, in the documented order, is a whole registry."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from events.task_group import TaskGroup
from services.adapters.registry import HttpRegistry
from tests.integration.collector.test_sweep import Store
from tests.laboratory import Lab

pytestmark = pytest.mark.real
V2 = "docker/registry/v2"


def copied(source: Path, target: Path, part: str) -> None:
    """`rsync -a` of one of the two folders."""
    (target / V2).mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(source / V2 / part), str(target / V2)], check=True)


async def test_a_copy_that_was_taken_in_use_has_every_tag_whole(lab: Lab, tmp_path: Path, unique: str) -> None:
    """Links first, content second, while images are pushed, deleted and collected; each tag of the copy is read whole
    from a registry that serves it."""
    server = lab.registry(f"backed-up-{unique}")
    copy = tmp_path / "copy"
    async with HttpRegistry.open(server.url) as registry:
        store = Store(registry, server.storage)
        for number in range(5):
            await store.push(f"before-{number}", os.urandom(1000))
        busy = asyncio.Event()

        async def use() -> None:
            number = 0
            while True:
                manifest = await store.push(f"during-{number}", os.urandom(1000))
                if number % 3 == 2:
                    digest = manifest.digest.removeprefix("sha256:")
                    store.storage.delete_tag(store.name, f"during-{number}", digest)
                    await store.sweep.collect()
                number += 1
                busy.set()

        async with TaskGroup() as tasks:
            using = tasks.create_task(use())
            for part in ("repositories", "blobs"):
                busy.clear()
                await busy.wait()
                await asyncio.to_thread(copied, server.storage, copy, part)
            using.cancel()
    server.stop()

    restored = lab.registry(f"restored-{unique}", storage=copy)
    async with HttpRegistry.open(restored.url) as registry:
        tags = [tag for tag in await registry.tags(store.name) if await registry.manifest(store.name, tag)]
        assert {f"before-{number}" for number in range(5)} <= set(tags)
        assert any(tag.startswith("during") for tag in tags)
        for tag in tags:
            found = await registry.manifest(store.name, tag)
            assert found is not None
            for blob in (found[1].body.config, *found[1].body.layers):
                async with registry.open_blob(store.name, blob.digest) as chunks:
                    assert [chunk async for chunk in chunks]
    restored.stop()
