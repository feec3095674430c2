"""Brings images onto the host's engine: out of a `docker save` archive, or by a reference that the engine pulls.

Consumes nothing (the CLI and the API call it); emits `image.imported.v1` to the images stream, one per image.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

from events.messages import ImageAppeared, ImageImported, Push
from services.announcing import Announcer, target_reference
from services.core.archive_check import ArchiveCheck
from services.core.archives import END
from services.core.references import Reference
from services.errors import BadInput, CyroidError, TransferFailed
from services.ports import Chunks, Engine, EngineProgress
from services.telemetry import get_logger

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
        self._log = get_logger(role="importer")

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
        """Load the archive; one event for each name in it, or the one for the name that was asked for.

        Raises BadArchive, or BadInput where names are missing or too many, and leaves nothing of it behind.
        """
        wanted = target_reference(archive.reference) if archive.reference else None
        await self._announcer.check()
        flow = _Checked(archive, self._engine)
        try:
            await self._load(flow, on_progress)
            if wanted is not None:
                await self._rename(flow, wanted)
        except CyroidError:
            await self._take_back(flow)
            raise
        return [
            await self._announcer.announce(
                ImageImported, name, origin=archive.origin, push=push, correlation_id=correlation_id
            )
            for name in (flow.before if wanted is None else [wanted])
        ]

    async def _load(self, flow: _Checked, on_progress: OnProgress) -> None:
        try:
            async with self._engine.load(flow.chunks()) as lines:
                async for line in lines:
                    if line.status.startswith(_LOADED_ID):
                        flow.unnamed.append(line.status.removeprefix(_LOADED_ID).strip())
                    on_progress(line)
        except CyroidError:
            if flow.problem is not None:  # the engine only saw its request end early; this is why
                raise flow.problem from None
            raise
        if flow.problem is not None:
            raise flow.problem

    async def _rename(self, flow: _Checked, wanted: str) -> None:
        """Give the archive's one image the wanted name; the archive's own name means again what it meant before."""
        source = next(iter([*flow.before, *flow.unnamed]), None)
        if source is None:
            raise TransferFailed("the engine loaded the archive, but did not say what image it has now; try again")
        await self._engine.tag(source, wanted)
        for name, before in flow.before.items():
            if name != wanted:
                await self._restore(name, before)

    async def _take_back(self, flow: _Checked) -> None:
        """An archive of several images that failed at a later one has left the earlier ones and their names."""
        try:
            left = set(flow.unnamed)
            for name, before in flow.before.items():
                left |= await self._restore(name, before)
            for local_id in left:
                await self._drop(local_id)
        except CyroidError as problem:  # that which made it necessary says more
            self._log.warning(
                "not all of a failed import could be taken back", image=list(flow.before), why=str(problem)
            )

    async def _restore(self, name: str, before: str | None) -> set[str]:
        """Let `name` mean what it meant. Returns what it was taken away from, if that still is there."""
        image = await self._engine.inspect(name)
        now = None if image is None else image.local_id
        if now == before:
            return set()
        if before is None:
            await self._engine.untag(name)
        else:
            await self._engine.tag(before, name)
        return set() if now is None else {now}

    async def _drop(self, local_id: str) -> None:
        """Take an image away that has no name; one that was there before under a name has it still."""
        image = await self._engine.inspect(local_id)
        if image is not None and not image.references:
            await self._engine.untag(local_id)


class _Checked:
    """An archive on its way to the engine, looked at as it passes. The engine never gets the end of a bad one.

    before   each name in the archive and the local id of what had it until now; known just before the engine gets
             the end, so all that can be said against the names is said before it loads anything
    unnamed  local ids of what the engine loaded without a name
    """

    def __init__(self, archive: Archive, engine: Engine) -> None:
        self._archive = archive
        self._engine = engine
        self.problem: CyroidError | None = None
        self.before: dict[str, str | None] = {}
        self.unnamed: list[str] = []

    async def chunks(self) -> AsyncIterator[bytes]:
        check = ArchiveCheck(self._archive.origin)
        held = b""
        try:
            async for chunk in self._archive.chunks:
                padding = check.ended
                check.feed(chunk)
                if padding:
                    continue  # an engine that reads no further than a tar's end would begin to load
                if held:
                    yield held
                held = chunk
            names = [str(Reference.parse(name)) for name in check.finish()]
            self._judge(names, check.image_count)
            self.before = {name: await self._local_id(name) for name in names}
        except CyroidError as problem:
            self.problem = problem
            raise
        finally:
            if isinstance(self._archive.chunks, AsyncGenerator):
                await self._archive.chunks.aclose()  # a bad archive's file is not read to its end
        yield held + END if check.ended else held

    def _judge(self, names: list[str], image_count: int) -> None:
        origin = self._archive.origin
        if self._archive.reference is None:
            if not names:
                raise BadInput(f"the image in {origin} has no name; say one with --as", code="no_name")
        elif (found := max(len(names), image_count)) != 1:
            raise BadInput(
                f"{origin} holds {found} images or names, so --as cannot name it;"
                " import it without --as, then `cyroid-images images promote` the one you want",
                code="many_names",
            )

    async def _local_id(self, name: str) -> str | None:
        image = await self._engine.inspect(name)
        return None if image is None else image.local_id
