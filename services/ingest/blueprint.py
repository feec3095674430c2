"""Imports a blueprint zip: a manifest, then the image archives that it names, each streamed to the host's engine.

The manifest has to come first, so that nothing has to be kept: an archive is named, checked and loaded while it is
received. One that fails ends the import; what was imported before it stays, and its events were published.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator

from events.messages import ImageAppeared, Push
from services.content.decompression import unpacked
from services.core.archives.zip_stream import EntryEnd, EntryStart, ZipEvent, ZipParser
from services.core.images.blueprints import MANIFEST, MANIFEST_LIMIT_BYTES, BlueprintManifest, read_manifest
from services.errors import BadArchive
from services.ingest.archive_flow import Archive
from services.ingest.importer import Importer, OnProgress
from services.ports import Chunks


class ZipReader:
    """Reads the entries of a zip stream, one after the other. Raises BadArchive.

    limit_bytes  the most that all entries together may have when they are unpacked
    """

    def __init__(self, chunks: Chunks, origin: str, *, limit_bytes: int) -> None:
        self._chunks, self._origin, self._left = chunks, origin, limit_bytes
        self._parser = ZipParser()
        self._events: Iterator[ZipEvent] = iter(())
        self._inside = False

    async def entries(self) -> AsyncIterator[str]:
        """The name of each entry; what is not read of its `content` is passed over."""
        while (event := await self._next()) is not None:
            if isinstance(event, EntryStart):
                self._inside = True
                yield event.name
                async for _ in self.content():
                    pass

    async def content(self) -> AsyncIterator[bytes]:
        """The rest of the current entry."""
        while self._inside:
            event = await self._next()
            if isinstance(event, bytes):
                yield event
            elif event is None or isinstance(event, EntryEnd):
                self._inside = False

    async def _next(self) -> ZipEvent | None:
        """The next event; None at the end."""
        try:
            while (event := await asyncio.to_thread(next, self._events, None)) is None:
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    self._parser.finish()
                    return None
                self._events = self._parser.feed(chunk)
        except ValueError as problem:
            raise BadArchive(f"{self._origin}: {problem}; get it again, whole") from problem
        if isinstance(event, bytes):
            self._left -= len(event)
            if self._left < 0:
                raise BadArchive(f"{self._origin} takes more than CYROID_IMPORT_LIMIT_BYTES when it is unpacked")
        return event


async def import_blueprint(
    chunks: Chunks,
    origin: str,
    *,
    importer: Importer,
    limit_bytes: int,
    push: Push,
    on_progress: OnProgress,
    on_image: Callable[[ImageAppeared], None],
    correlation_id: str = "",
    actor: str = "",
) -> None:
    """Import every image of the blueprint; `on_image` is told of each. Raises as Importer does."""
    reader = ZipReader(chunks, origin, limit_bytes=limit_bytes)
    manifest: BlueprintManifest | None = None
    left: set[str] = set()
    async for name in reader.entries():
        if manifest is None:
            manifest = await _manifest(reader, name, origin)
            left = set(manifest.files())
        elif name in left:
            left.discard(name)
            image = manifest.files()[name]
            content = _checked(reader.content(), image.sha256, f"{origin}: {name}")
            archive = Archive(
                chunks=unpacked(content, name), origin=f"{origin}: {name}", reference=image.reference or None
            )
            for appeared in await importer.import_archive(
                archive, push=push, on_progress=on_progress, correlation_id=correlation_id, actor=actor
            ):
                on_image(appeared)
    if manifest is None:
        raise BadArchive(f"{origin} is an empty zip")
    if left:
        raise BadArchive(f"{origin} lacks {', '.join(sorted(left))[:400]}, which its {MANIFEST} names")
    for reference in manifest.pulled():
        on_image(
            await importer.import_reference(
                reference, push=push, on_progress=on_progress, correlation_id=correlation_id, actor=actor
            )
        )


async def _manifest(reader: ZipReader, name: str, origin: str) -> BlueprintManifest:
    if name != MANIFEST:
        raise BadArchive(f"{origin} begins with {name[:200]!r}: the first entry of a blueprint is {MANIFEST}")
    content = b""
    async for piece in reader.content():
        content += piece
        if len(content) > MANIFEST_LIMIT_BYTES:
            raise BadArchive(f"{origin}: {MANIFEST} has more than {MANIFEST_LIMIT_BYTES} bytes")
    return read_manifest(content, origin)


async def _checked(chunks: Chunks, sha256: str | None, what: str) -> AsyncIterator[bytes]:
    """The chunks; raises BadArchive at their end where they are not the ones that the manifest names."""
    digest = hashlib.sha256()
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if sha256 is not None and digest.hexdigest() != sha256.removeprefix("sha256:"):
        raise BadArchive(f"{what} has another SHA-256 than {MANIFEST} names")
