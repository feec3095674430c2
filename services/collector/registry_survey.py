"""Survey of a registry through its API alone: tags, what they name, and sizes, for a storage that is no folder (S3).

What no tag names is invisible here, and so are times: the figures are of what tags reference.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from services.collector.measure import Measured
from services.core.images.manifests import sha256
from services.core.store.figures import StoreFigures, repository_figures, store_details
from services.core.store.mark import ManifestLinks, Mark, manifest_links
from services.errors import BadInput, NotAnImage, TransferFailed
from services.ports import Registry

_AT_ONCE = 16


@dataclass(slots=True)
class Survey:
    """`mark` has the tags; `links` what each manifest names, `sizes` the bytes of manifests and blobs."""

    mark: Mark = field(default_factory=Mark)
    links: dict[str, ManifestLinks] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def take(self, digest: str, content: bytes) -> ManifestLinks | None:
        """Note a manifest or an index by its bytes."""
        links = manifest_links(content)
        if links is not None:
            self.links[digest] = links
            self.sizes[digest] = len(content)
            self.sizes.update((blob, size) for blob, size in zip(links.blobs, links.sizes, strict=True) if size >= 0)
        return links

    def measured(self, at: datetime) -> Measured:
        """The storage figures, with `by_api` set: those that need the storage's files are 0."""
        rows, logical, once = repository_figures(self.mark, self.links.get, self.sizes)
        figures = StoreFigures(
            at=at,
            tags=len(self.mark.tagged),
            repositories=len(rows),
            blobs=len(self.sizes),
            stored_bytes=once,
            referenced_bytes=once,
            collectable_bytes=0,
            quarantined_bytes=0,
            logical_bytes=logical,
            saved_bytes=logical - once,
            uploads_bytes=0,
            disk_bytes=0,
            free_bytes=0,
            damaged=tuple(f"{repository}@sha256:{digest}" for repository, digest in self.mark.damaged),
            by_repository=rows[:1000],
            by_api=True,
        )
        return Measured(figures, store_details(self.mark, self.links.get, self.sizes, at))


async def survey(registry: Registry) -> Survey:
    """Every tag of every repository. Raises RegistryUnavailable, TransferFailed."""
    found, slots = Survey(), asyncio.Semaphore(_AT_ONCE)

    async def manifest(repository: str, reference: str) -> str | None:
        """Note what is there, and what is below it; its digest."""
        async with slots:
            content = await manifest_content(registry, repository, reference)
        if content is None:
            return None
        digest, text = content
        links = found.take(digest, text)
        for child in links.children if links is not None else ():
            if child not in found.links:
                await manifest(repository, f"sha256:{child}")
        return digest

    async def tag(repository: str, name: str) -> None:
        try:
            digest = await manifest(repository, name)
        except (BadInput, TransferFailed):
            found.mark.broken_tags.append((repository, name))
            return
        if digest is not None:
            found.mark.tagged[repository, name] = digest

    async for repository in registry.repositories():
        async with slots:
            names = await registry.tags(repository)
        await asyncio.gather(*(tag(repository, name) for name in names))
    return found


async def manifest_content(registry: Registry, repository: str, reference: str) -> tuple[str, bytes] | None:
    """Digest (64 hexadecimal digits) and bytes of a manifest or an index; None where there is none."""
    try:
        there = await registry.manifest(repository, reference)
    except NotAnImage as problem:
        return _hex(problem.content), problem.content
    return None if there is None else (_hex(there[1].content), there[1].content)


def _hex(content: bytes) -> str:
    return sha256(content).removeprefix("sha256:")
