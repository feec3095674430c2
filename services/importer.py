"""Brings images onto the host's engine: out of a `docker save` archive, or by a reference that the engine pulls.

Consumes nothing (the CLI and the API call it); emits `image.imported.v1` to the images stream, one per image.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from events.messages import ImageAppeared, ImageImported, Push
from services.announcing import Announcer, target_reference
from services.core.archive_check import ArchiveCheck
from services.core.references import Reference
from services.errors import BadInput, CyroidError
from services.ports import Chunks, Engine, EngineProgress

_LOADED_ID = "Loaded image ID: "
OnProgress = Callable[[EngineProgress], None]


def _ignore(progress: EngineProgress) -> None:
    """Nobody looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A tar to import. `origin` is its name for people; `reference` is one more name for its image."""

    chunks: Chunks
    origin: str
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of one item of a list: its images, or the error."""

    item: str
    images: tuple[ImageAppeared, ...] = ()
    error: CyroidError | None = None


class Importer:
    """Archives and references in, images and events out."""

    def __init__(self, *, engine: Engine, announcer: Announcer) -> None:
        self._engine = engine
        self._announcer = announcer

    async def import_many(
        self, items: list[Archive | str], *, push: Push = "auto", on_progress: OnProgress = _ignore
    ) -> list[Imported]:
        """Each item by itself, in order: one that fails does not stop the others."""
        results = []
        for item in items:
            name = item if isinstance(item, str) else item.origin
            try:
                if isinstance(item, str):
                    images = [await self.import_reference(item, push=push, on_progress=on_progress)]
                else:
                    images = await self.import_archive(item, push=push, on_progress=on_progress)
            except CyroidError as problem:
                results.append(Imported(item=name, error=problem))
            else:
                results.append(Imported(item=name, images=tuple(images)))
        return results

    async def import_reference(
        self, reference: str, *, push: Push = "auto", on_progress: OnProgress = _ignore, correlation_id: str = ""
    ) -> ImageAppeared:
        """The host's engine pulls it from wherever its name says. Raises NotFound, RegistryUnavailable."""
        name = str(Reference.parse(reference))
        await self._announcer.check()
        async with self._engine.pull(name) as lines:
            async for line in lines:
                on_progress(line)
        return await self._announcer.announce(
            ImageImported, name, origin=name, push=push, correlation_id=correlation_id
        )

    async def import_archive(
        self, archive: Archive, *, push: Push = "auto", on_progress: OnProgress = _ignore, correlation_id: str = ""
    ) -> list[ImageAppeared]:
        """Load the archive; one event for each name in it. Raises BadArchive and leaves nothing of it behind."""
        wanted = target_reference(archive.reference) if archive.reference else None
        await self._announcer.check()
        flow = _Checked(archive)
        unnamed = await self._load(flow, on_progress)
        names = [str(Reference.parse(name)) for name in flow.names]
        if wanted is not None:
            await self._engine.tag(_only(archive, names, unnamed), wanted)
            names = [wanted]
        elif not names:
            await self._drop(unnamed)
            raise BadInput(f"the image in {archive.origin} has no name; say one with --as", code="no_name")
        return [
            await self._announcer.announce(
                ImageImported, name, origin=archive.origin, push=push, correlation_id=correlation_id
            )
            for name in names
        ]

    async def _load(self, flow: _Checked, on_progress: OnProgress) -> list[str]:
        """Local ids of images that came without a name."""
        unnamed: list[str] = []
        try:
            async with self._engine.load(flow.chunks()) as lines:
                async for line in lines:
                    if line.status.startswith(_LOADED_ID):
                        unnamed.append(line.status.removeprefix(_LOADED_ID).strip())
                    on_progress(line)
        except CyroidError:
            if flow.problem is not None:  # the engine only saw its request end early; this is why
                raise flow.problem from None
            raise
        if flow.problem is not None:
            raise flow.problem
        return unnamed

    async def _drop(self, unnamed: list[str]) -> None:
        """Take away what was loaded without a name, unless it was there before under one."""
        for local_id in unnamed:
            image = await self._engine.inspect(local_id)
            if image is not None and not image.references:
                await self._engine.untag(local_id)


def _only(archive: Archive, names: list[str], unnamed: list[str]) -> str:
    """What the archive's one image is called so far."""
    found = names + unnamed
    if len(found) != 1:
        raise BadInput(
            f"{archive.origin} holds {len(found)} images or names, so --as cannot name it;"
            " import it without --as, then `cyroid-images images promote` the one you want",
            code="many_names",
        )
    return found[0]


class _Checked:
    """An archive on its way to the engine, looked at as it passes. The engine never gets the end of a bad one."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.problem: CyroidError | None = None
        self.names: list[str] = []

    async def chunks(self) -> AsyncIterator[bytes]:
        check = ArchiveCheck(self._archive.origin)
        held = b""
        try:
            async for chunk in self._archive.chunks:
                check.feed(chunk)
                if held:
                    yield held
                held = chunk
            self.names = check.finish()
        except CyroidError as problem:
            self.problem = problem
            raise
        yield held
