"""What the registry holds, counted from its manifests: images, room taken, and room saved by sharing layers.

The registry's API tells no sizes of its own, so every manifest is read: a layer that ten images share counts ten times
in `logical_bytes` and once in what is stored.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from events.messages import Failure
from services.errors import BadInput, CyroidError, WrongContent
from services.ports import Registry

_AT_ONCE = 16
FRESH_SECONDS = 5.0


class RegistryStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """GET /api/v1/registry/stats. Sizes are of blobs as stored; the disk itself is asked for `storage_used_bytes`."""

    healthy: bool
    images: int = 0
    """Tags; one that names no image of one platform (an index) counts, but what it names is not in the bytes."""
    repositories: int = 0
    layers: int = 0
    """Different layers stored."""
    storage_used_bytes: int = 0
    logical_bytes: int = 0
    """What the images would take if they shared nothing."""
    saved_bytes: int = 0
    storage_measured: bool = False
    """Whether `storage_used_bytes` was measured on the disk; otherwise it is the sum of the blobs that are named."""
    storage_free_bytes: int | None = None
    error: Failure | None = None


class Statistics:
    """Counts when asked, at most once in a few seconds, however many ask."""

    def __init__(self, *, registry: Registry, storage: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._storage = Path(storage) if storage else None
        self._clock = clock
        self._counting = asyncio.Lock()
        self._last: tuple[float, RegistryStatistics] | None = None

    async def get(self) -> RegistryStatistics:
        """The numbers now. A registry that is away makes them unhealthy, not an error: pages show that."""
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
        measured = None if self._storage is None else await asyncio.to_thread(_disk, self._storage)
        return RegistryStatistics(
            healthy=True,
            images=sum(counts),
            repositories=sum(1 for count in counts if count),
            layers=len(layers),
            storage_used_bytes=stored if measured is None else measured[0],
            logical_bytes=logical[0],
            saved_bytes=logical[0] - stored,
            storage_measured=measured is not None,
            storage_free_bytes=None if measured is None else measured[1],
        )


def _disk(folder: Path) -> tuple[int, int] | None:
    """Bytes taken below `folder` and bytes free there; None where it cannot be read."""
    try:
        free = os.statvfs(folder)
    except OSError:
        return None
    taken = 0
    for here, _, files in os.walk(folder):
        for name in files:
            try:
                taken += os.lstat(os.path.join(here, name)).st_blocks * 512
            except OSError:
                continue  # an upload that ended meanwhile
    return taken, free.f_bavail * free.f_frsize
