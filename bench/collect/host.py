"""The host of a storm: a real engine whose images are pushed, freed and brought back by a process that is killed."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import AsyncIterator

from bench.collect.kills import killed_at_random
from deploy.lab import EngineServer, Lab
from services.adapters.engine import DockerEngine
from services.adapters.memory_archives import tar_of
from services.core.images.references import Reference
from services.ports import Registry

IMAGES = 6


class StormHost:
    """Images on an engine of its own, and the config digest of each."""

    def __init__(self, lab: Lab, name: str) -> None:
        self._engine: EngineServer = lab.engine(f"{name}-host")
        self._images: dict[str, str] = {}

    async def fill(self) -> None:
        """Images that nobody else has."""
        async with DockerEngine.open(self._engine.url) as engine:
            for number in range(IMAGES):
                name = f"docker.io/storm/host:{number}"
                root = tar_of({"f": os.urandom(20_000 + number)})
                async with engine.import_root(_once(root), reference=name) as lines:
                    async for _ in lines:
                        pass
                found = await engine.inspect(name)
                self._images[name] = (found and found.image_id) or ""

    async def reclaim(self, registry_url: str, redis_url: str, prefix: str, dice: random.Random) -> AsyncIterator[None]:
        """Gives one item for each kill, for ever."""
        command = (sys.executable, "-m", "bench.collect.reclaimer_process", registry_url, redis_url, prefix)
        async for _ in killed_at_random((*command, self._engine.url, "0.02", *self._images), dice, (6.0, 14.0)):
            yield

    async def lost(self, registry: Registry) -> int:
        """Images that neither the engine nor the registry has any more."""
        lost = 0
        async with DockerEngine.open(self._engine.url) as engine:
            for name, image_id in self._images.items():
                there = await engine.inspect(name)
                if there is not None and there.image_id == image_id:
                    continue
                reference = Reference.parse(name)
                found = await registry.manifest(reference.repository, reference.registry_tag)
                lost += found is None or found[1].body.config.digest != image_id
        return lost


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
