"""Imports files: an image archive or a blueprint zip, told apart by their first bytes; and several in one go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace

from events.messages import ImageAppeared, Push
from services.core.archives.zip_stream import ZIP_MAGIC
from services.core.closing import closing
from services.errors import BadInput, CyroidError
from services.ingest.archive_flow import Archive
from services.ingest.blueprint import import_blueprint
from services.ingest.importer import Importer, OnProgress
from services.ports import Chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The result for one item of a list: its images, and the error that ended it."""

    item: str
    images: tuple[ImageAppeared, ...] = ()
    error: CyroidError | None = None


async def import_file(
    file: Archive,
    *,
    importer: Importer,
    limit_bytes: int,
    push: Push,
    on_progress: OnProgress,
    on_image: Callable[[ImageAppeared], None],
    correlation_id: str = "",
    actor: str = "",
) -> None:
    """Import an archive or a blueprint; `on_image` is told of each image. Raises as Importer does.

    limit_bytes  the most that a blueprint's entries may have together when they are unpacked
    """
    head = b""
    while len(head) < len(ZIP_MAGIC) and (chunk := await anext(file.chunks, None)) is not None:
        head += chunk
    whole = _joined(head, file.chunks)
    if not head.startswith(ZIP_MAGIC):
        archive = replace(file, chunks=whole)
        for image in await importer.import_archive(
            archive, push=push, on_progress=on_progress, correlation_id=correlation_id, actor=actor
        ):
            on_image(image)
        return
    if file.reference:
        raise BadInput("a blueprint names its images itself: leave out the name", code="many_names")
    await import_blueprint(
        whole,
        file.origin,
        importer=importer,
        limit_bytes=limit_bytes,
        push=push,
        on_progress=on_progress,
        on_image=on_image,
        correlation_id=correlation_id,
        actor=actor,
    )


async def import_many(
    items: Sequence[Archive | str],
    *,
    importer: Importer,
    limit_bytes: int,
    push: Push = "auto",
    on_progress: OnProgress = lambda progress: None,
    actor: str = "",
) -> list[Imported]:
    """Import each item by itself, in order: one that fails does not stop the others."""
    results = []
    for item in items:
        images: list[ImageAppeared] = []
        error: CyroidError | None = None
        try:
            if isinstance(item, str):
                images.append(await importer.import_reference(item, push=push, on_progress=on_progress, actor=actor))
            else:
                await import_file(
                    item,
                    importer=importer,
                    limit_bytes=limit_bytes,
                    push=push,
                    on_progress=on_progress,
                    on_image=images.append,
                    actor=actor,
                )
        except CyroidError as problem:
            error = problem
        name = item if isinstance(item, str) else item.origin
        results.append(Imported(item=name, images=tuple(images), error=error))
    return results


async def _joined(head: bytes, rest: Chunks) -> AsyncGenerator[bytes, None]:
    """The whole; closed early, it closes the rest."""
    async with closing(rest):
        if head:
            yield head
        async for chunk in rest:
            yield chunk
