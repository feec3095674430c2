"""What an ingest command leads to on the host's engine: a build, an import of an archive or a blueprint, a promote."""

from __future__ import annotations

from typing import Protocol

from events.messages import ImageAppeared
from services.commands.ingest import ArchiveCommand, BuildCommand, IngestCommand, PromoteCommand, PullCommand
from services.content.decompression import unpacked
from services.core.images.ingests import IngestRecord
from services.errors import BadInput
from services.ingest.archive_flow import Archive
from services.ingest.build import BuildService
from services.ingest.files import import_file
from services.ingest.importer import Importer
from services.ingest.promote import PromoteService
from services.ports import Chunks, EngineProgress


class Follower(Protocol):
    """Is told how a command goes on; `record` has its id and who asked."""

    @property
    def record(self) -> IngestRecord: ...

    def line(self, text: str) -> None: ...

    def progress(self, progress: EngineProgress) -> None: ...

    def image(self, image: ImageAppeared) -> None: ...


class IngestWork:
    """Carries out one command at a time for whoever follows it.

    import_limit_bytes  the most that a blueprint's entries may have together when they are unpacked
    """

    def __init__(
        self, *, build: BuildService, importer: Importer, promote: PromoteService, import_limit_bytes: int
    ) -> None:
        self._build, self._importer, self._promote = build, importer, promote
        self._import_limit_bytes = import_limit_bytes

    async def do(self, command: IngestCommand, content: Chunks | None, follower: Follower) -> None:
        """Do it; the follower is told of each image. Raises what the services raise."""
        match command:
            case BuildCommand():
                follower.image(await self._built(command, _given(content), follower))
            case ArchiveCommand():
                await self._import(command, _given(content), follower)
            case PullCommand():
                await self._pull(command, follower)
            case PromoteCommand():
                follower.image(await self._promoted(command, follower))

    async def _built(self, command: BuildCommand, content: Chunks, follower: Follower) -> ImageAppeared:
        return await self._build.build(
            unpacked(content, "the build context"),
            reference=command.reference,
            origin=command.origin,
            options=command.options,
            push=command.push,
            on_line=follower.line,
            correlation_id=follower.record.id,
            actor=follower.record.actor,
        )

    async def _pull(self, command: PullCommand, follower: Follower) -> None:
        image = await self._importer.import_reference(
            command.reference,
            push=command.push,
            on_progress=follower.progress,
            correlation_id=follower.record.id,
            actor=follower.record.actor,
        )
        follower.image(image)

    async def _promoted(self, command: PromoteCommand, follower: Follower) -> ImageAppeared:
        ident, actor = follower.record.id, follower.record.actor
        if command.is_image:
            return await self._promote.promote_image(
                command.origin, reference=command.reference, push=command.push, correlation_id=ident, actor=actor
            )
        return await self._promote.promote_container(
            command.origin,
            reference=command.reference,
            changes=command.changes,
            push=command.push,
            correlation_id=ident,
            actor=actor,
        )

    async def _import(self, command: ArchiveCommand, content: Chunks, follower: Follower) -> None:
        ident, actor = follower.record.id, follower.record.actor
        archive = Archive(
            chunks=unpacked(content, command.origin), origin=command.origin, reference=command.reference or None
        )
        await import_file(
            archive,
            importer=self._importer,
            limit_bytes=self._import_limit_bytes,
            push=command.push,
            on_progress=follower.progress,
            on_image=follower.image,
            correlation_id=ident,
            actor=actor,
        )


def _given(content: Chunks | None) -> Chunks:
    if content is None:
        raise BadInput("nothing was uploaded")
    return content
