"""Registry statistics, counted from its manifests: images, space taken, and space saved by sharing layers.

The registry's API reports no sizes, so every manifest is read: a layer that ten images share counts ten times
in `logical_bytes` and once in what is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from services.core.images.registry_statistics import RegistryStatistics
from services.errors import BadInput, CyroidError, WrongContent
from services.ports import Registry
from services.queries.disk_use import disk_use

_AT_ONCE = 16
FRESH_SECONDS = 5.0


class Statistics:
    """Counts on request, at most once in a few seconds."""

    def __init__(self, *, registry: Registry, storage: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._storage = Path(storage) if storage else None
        self._clock = clock
        self._counting = asyncio.Lock()
        self._last: tuple[float, RegistryStatistics] | None = None

    async def get(self) -> RegistryStatistics:
        """The figures now. With the registry unavailable they are marked unhealthy, which is not an error."""
        async with self._counting:
            if self._last is not None and self._clock() - self._last[0] < FRESH_SECONDS:
                return self._last[1]
            try:
                counted = await self._count()
            except CyroidError as problem:
                return RegistryStatistics(healthy=False, error=problem.failure())
            self._last = (self._clock(), counted)
            return counted

    async def _count(self) -> RegistryStatistics:
        repositories = [repository async for repository in self._registry.repositories()]
        slots = asyncio.Semaphore(_AT_ONCE)
        blobs: dict[str, int] = {}
        layers: set[str] = set()
        logical = [0]

        async def image(repository: str, tag: str) -> bool:
            try:
                async with slots:
                    found = await self._registry.manifest(repository, tag)
            except (BadInput, WrongContent):
                return True  # an index, or what some other program left there: a tag whose blobs nobody names
            if found is None:
                return False
            body = found[1].body
            sizes = {one.digest: one.size for one in (body.config, *body.layers)}
            blobs.update(sizes)
            layers.update(layer.digest for layer in body.layers)
            logical[0] += sum(one.size for one in (body.config, *body.layers))
            return True

        async def one_repository(repository: str) -> int:
            async with slots:
                tags = await self._registry.tags(repository)
            return sum(await asyncio.gather(*(image(repository, tag) for tag in tags)))

        counts = await asyncio.gather(*(one_repository(repository) for repository in repositories))
        stored = sum(blobs.values())
        measured = None if self._storage is None else await asyncio.to_thread(disk_use, self._storage)
        return RegistryStatistics(
            healthy=True,
            images=sum(counts),
            repositories=sum(1 for count in counts if count),
            layers=len(layers),
            storage_used_bytes=stored if measured is None else measured.taken_bytes,
            logical_bytes=logical[0],
            saved_bytes=logical[0] - stored,
            storage_measured=measured is not None,
            storage_free_bytes=None if measured is None else measured.free_bytes,
        )
