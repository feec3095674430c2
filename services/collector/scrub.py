"""Scrub: re-hash what the registry stores at a bounded rate, and set damaged bytes aside so that a push replaces them.

A registry answers 200 for a blob that was cut or changed on the disk, and an upload of the right bytes is acknowledged
and thrown away, because the digest "is there". So damage is repaired in two steps: the bad file is renamed (no step
ever restores it), then the images that need it are pushed again, from the host's engine or whoever has them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from services.collector.background import in_background
from services.collector.progress import Step, untold
from services.collector.storage import BlobState, RegistryStorage
from services.core.store.figures import image_blobs
from services.core.store.mark import Mark


@dataclass(slots=True)
class ScrubResult:
    """What was read, which digests were damaged (now set aside) or are gone, and which (repository, tag) need them."""

    blobs: int = 0
    read_bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    affected: list[tuple[str, str]] = field(default_factory=list)

    def and_also(self, later: ScrubResult) -> ScrubResult:
        """Both, each digest and each place once."""
        return ScrubResult(
            blobs=later.blobs,
            read_bytes=later.read_bytes,
            damaged=list(dict.fromkeys([*self.damaged, *later.damaged])),
            missing=self.missing,
            affected=list(dict.fromkeys([*self.affected, *later.affected])),
        )


class Scrub:
    """`bytes_per_second` bounds how fast the disk is read; 0 is as fast as it goes."""

    def __init__(
        self,
        storage: RegistryStorage,
        *,
        bytes_per_second: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._rate = bytes_per_second
        self._clock = clock

    async def scrub(self, mark: Mark, blobs: Sequence[BlobState], *, step: Step = untold) -> ScrubResult:
        """Hash every blob that is served. One that vanishes meanwhile was collected, and is no damage."""
        result, started = ScrubResult(), self._clock()
        bad: set[str] = set()
        for blob in blobs:
            if blob.size_bytes is None:
                continue
            step("scrubbing", result.blobs, len(blobs), result.read_bytes)
            intact = await in_background(self._storage.is_intact, blob.digest)
            if intact is False:
                bad.add(blob.digest)
            elif intact:
                await asyncio.to_thread(self._storage.discard_damaged, blob.digest)
            result.blobs += 1
            result.read_bytes += blob.size_bytes
            if self._rate:
                ahead = result.read_bytes / self._rate - (self._clock() - started)
                await asyncio.sleep(max(0.0, ahead))
        return await self._set_aside(mark, bad, result)

    async def check_sizes(self, mark: Mark, blobs: Sequence[BlobState]) -> ScrubResult:
        """Compare each file's size with what manifests say it is: finds what was cut or is gone, without reading it.
        `blobs` are all that there are."""
        sizes = {blob.digest: blob.size_bytes for blob in blobs if blob.size_bytes is not None}
        aside = {blob.digest for blob in blobs if blob.quarantined_bytes is not None}  # the collection brings it back
        bad: set[str] = set()
        gone: set[str] = set()
        for manifest in set(mark.tagged.values()):
            links = self._storage.manifest(manifest)
            for digest, size in zip(links.blobs, links.sizes, strict=True) if links else ():
                if digest not in sizes:
                    gone.update({digest} - aside if size >= 0 else ())
                elif size >= 0 and sizes.get(digest, size) != size:
                    bad.add(digest)
        really = {digest for digest in bad if await asyncio.to_thread(self._storage.is_intact, digest) is False}
        missing = sorted(digest for digest in gone if self._storage.blob(digest).size_bytes is None)
        result = await self._set_aside(mark, {*really, *missing}, ScrubResult(blobs=len(sizes)))
        result.missing = [digest for digest in missing if self._storage.blob(digest).size_bytes is None]
        return result

    async def _set_aside(self, mark: Mark, bad: Collection[str], result: ScrubResult) -> ScrubResult:
        """What needs the damaged content is found before its manifest is taken away."""
        unreadable = {manifest for manifest in mark.tagged.values() if self._storage.manifest(manifest) is None}
        for place, manifest in mark.tagged.items():
            if manifest in unreadable or not image_blobs(manifest, self._storage.manifest).isdisjoint(bad):
                result.affected.append(place)
        for digest in sorted({*bad, *unreadable}):
            if await asyncio.to_thread(self._storage.set_damaged_aside, digest):
                result.damaged.append(digest)
        return result
