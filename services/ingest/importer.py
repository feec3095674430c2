"""Imports images into the host's engine: from an image archive, or by a reference that the engine pulls.

Consumes no stream (it is called in the process of its caller); publishes `image.imported.v1`, one per image, to the
images stream.
"""

from __future__ import annotations

from collections.abc import Callable

from events.messages import ImageAppeared, ImageImported, Push
from services.core.archives.entry_rules import ArchiveLimits
from services.core.images.references import Reference
from services.errors import CyroidError
from services.ingest.announcer import Announcer, target_reference
from services.ingest.archive_flow import Archive, ArchiveFlow
from services.ports import Engine, EngineProgress
from services.runtime.callbacks import guarded
from services.runtime.telemetry import get_logger

OnProgress = Callable[[EngineProgress], None]


def _ignore(progress: EngineProgress) -> None:
    """Discard progress."""


class Importer:
    """Imports archives and references, and publishes one event per image."""

    def __init__(
        self,
        *,
        engine: Engine,
        announcer: Announcer,
        limits: ArchiveLimits = ArchiveLimits(),  # noqa: B008  frozen
        free_bytes: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._announcer = announcer
        self._limits = limits
        self._free_bytes = free_bytes
        self._log = get_logger(role="importer")

    async def import_reference(
        self,
        reference: str,
        *,
        push: Push = "auto",
        on_progress: OnProgress = _ignore,
        correlation_id: str = "",
        actor: str = "",
    ) -> ImageAppeared:
        """Have the host's engine pull the reference. Raises NotFound, RegistryUnavailable."""
        name = str(Reference.parse(reference))
        tell = guarded(on_progress, f"the progress of {name}")
        await self._announcer.check()
        async with self._engine.pull(name) as lines:
            async for line in lines:
                tell(line)
        return await self._announcer.announce(
            ImageImported, name, origin=name, push=push, correlation_id=correlation_id, actor=actor
        )

    async def import_archive(
        self,
        archive: Archive,
        *,
        push: Push = "auto",
        on_progress: OnProgress = _ignore,
        correlation_id: str = "",
        actor: str = "",
    ) -> list[ImageAppeared]:
        """Load the archive; one event for each name in it, or the one for the name that was asked for.

        Raises BadArchive, NoSpace, or BadInput where names are missing or too many, and leaves nothing of it behind.
        """
        wanted = target_reference(archive.reference) if archive.reference else None
        await self._announcer.check()
        flow = ArchiveFlow(archive, self._engine, wanted=wanted, limits=self._limits, free_bytes=self._free_bytes)
        try:
            await self._load(flow, on_progress)
        except CyroidError:
            await self._take_back(flow)
            raise
        return [
            await self._announcer.announce(
                ImageImported, name, origin=archive.origin, push=push, correlation_id=correlation_id, actor=actor
            )
            for name in flow.before
        ]

    async def _load(self, flow: ArchiveFlow, on_progress: OnProgress) -> None:
        tell = guarded(on_progress, "the progress of an import")
        try:
            async with self._engine.load(flow.chunks()) as lines:
                async for line in lines:
                    tell(line)
        except CyroidError:
            if flow.problem is not None:  # the engine only saw its request end early; this is why
                raise flow.problem from None
            raise
        if flow.problem is not None:
            raise flow.problem

    async def _take_back(self, flow: ArchiveFlow) -> None:
        """An archive of several images that failed at a later one has left the earlier ones and their names."""
        try:
            for name, before in flow.before.items():
                await self._restore(name, before)
        except CyroidError as problem:  # that which made it necessary says more
            self._log.warning(
                "not all of a failed import could be taken back", image=list(flow.before), why=str(problem)
            )

    async def _restore(self, name: str, before: str | None) -> None:
        """Let `name` mean what it meant before. The image that has it now is removed, if it has no other name."""
        image = await self._engine.inspect(name)
        now = None if image is None else image.local_id
        if now is None or now == before:
            return
        if before is None:
            await self._engine.untag(name)
            return
        await self._engine.tag(before, name)
        left = await self._engine.inspect(now)
        if left is not None and not left.references:
            await self._engine.untag(now)
