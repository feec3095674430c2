"""Streaming of an archive to the host's engine: checked while it streams, and named before its end is sent.

The engine gets the end only when the whole archive was found to be good, so it loads nothing of a bad one. What an
archive holds but the engine cannot take (layers left out that it lacks, zstd on an old engine, more than its disk has
room for) is refused here with its reason; engines answer such with their internals.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from services.core.archives.archive_check import ArchiveCheck, CheckedArchive
from services.core.archives.archive_images import ArchivedImage
from services.core.archives.entry_rules import ArchiveLimits
from services.core.archives.layout import END, chain_prefix
from services.core.closing import closing
from services.core.images.image import EngineInfo
from services.core.images.references import Reference
from services.core.ranges.abilities import abilities
from services.errors import BadArchive, BadInput, CyroidError, NoSpace
from services.ports import Chunks, Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """An archive to import.

    `origin` is its name for people; `reference` names its one image, instead of the names in it.
    """

    chunks: Chunks
    origin: str
    reference: str | None = None


class ArchiveFlow:
    """One archive to one engine. `chunks()` is what the engine is given; the rest is known when that has ended.

    before   each name that the engine gives the archive's images, and the local id of what had it until then
    problem  why the flow ended early; the engine only sees its request break off
    """

    def __init__(
        self,
        archive: Archive,
        engine: Engine,
        *,
        wanted: str | None,
        limits: ArchiveLimits,
        free_bytes: Callable[[], int | None],
    ) -> None:
        self._archive = archive
        self._engine = engine
        self._wanted = wanted
        self._check = ArchiveCheck(archive.origin, limits)
        self._free_bytes = free_bytes
        self.problem: CyroidError | None = None
        self.before: dict[str, str | None] = {}

    async def chunks(self) -> AsyncIterator[bytes]:
        """The archive as the engine gets it. Raises what ends it early."""
        try:
            info = await self._engine.info()
            async with closing(self._archive.chunks):  # a bad archive's file is not read to its end
                async for chunk in self._archive.chunks:
                    passed = await asyncio.to_thread(self._pass, chunk)
                    if passed:
                        yield passed
            checked = await asyncio.to_thread(self._check.finish, info.platform)
            names = self._names(checked)
            await self._check_engine(checked, info)
            used = dict.fromkeys(name for image_names in names.values() for name in image_names)
            self.before = {name: await self._local_id(name) for name in used}
        except CyroidError as problem:
            self.problem = problem
            raise
        yield checked.documents(names) + END

    def _pass(self, chunk: bytes) -> bytes:
        passed = b"".join(self._check.feed(chunk))
        free = self._free_bytes()
        if free is not None and self._check.unpacked_bytes > free:
            raise NoSpace(
                f"{self._archive.origin} takes more than {self._check.unpacked_bytes} bytes when it is unpacked, and"
                f" the disk of the host's engine has {free} left: make room there"
            )
        return passed

    def _names(self, checked: CheckedArchive) -> dict[str, tuple[str, ...]]:
        """Normalised names by the path of an image's config; images without one are left out."""
        origin, images = self._archive.origin, checked.images
        if self._wanted is not None:
            if len(images) != 1:
                raise BadInput(
                    f"{origin} holds {len(images)} images, so --as cannot name it;"
                    " import it without --as, then `cyroid-images images promote` the one you want",
                    code="many_names",
                )
            return {images[0].config_path: (self._wanted,)}
        names = {image.config_path: _normalised(image) for image in images if image.names}
        if not names:
            raise BadInput(f"the image in {origin} has no name; give it one with --as", code="no_name")
        return names

    async def _check_engine(self, checked: CheckedArchive, info: EngineInfo) -> None:
        """Raises BadArchive for what this engine cannot load, with the reason."""
        origin = self._archive.origin
        if checked.has_zstd and "zstd" not in abilities(info):
            raise BadArchive(
                f"{origin} holds layers packed by zstd, which engine {info.version} cannot read (23.0 and later can);"
                " save it again with gzip"
            )
        thin = checked.left_out
        if not thin:
            return
        present = [image.diff_ids for image in await self._engine.images()] if info.store == "classic" else []
        for image in thin:
            diff_ids = image.config.rootfs.diff_ids
            missing = [place for place, path in enumerate(image.layers) if path is None]
            if missing[-1] >= chain_prefix(diff_ids, present):
                advice = (
                    "the host's engine does not have: bring the image that it is based on there first, or save it again"
                    if info.store == "classic"
                    else "an engine on the containerd store cannot add: save it again"
                )
                raise BadArchive(
                    f"{origin} leaves out {len(missing)} of {len(diff_ids)} layers, which {advice} with all layers"
                )

    async def _local_id(self, name: str) -> str | None:
        image = await self._engine.inspect(name)
        return None if image is None else image.local_id


def _normalised(image: ArchivedImage) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(Reference.parse(name)) for name in image.names))
