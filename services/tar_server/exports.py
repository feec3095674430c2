"""Exports: each archive is written once, into a spool, for all ranges that need the same.

An export begins with its first reader, and ends some seconds after its last one has gone, so that a range that comes
a moment later still finds the spool; at once where its reader's transfer was cancelled. One that nobody reads any more
is stopped, and so is its reading of the engine.

Exports take turns: first come, first served, for a slot and then for room in the spool folder. A reader is told after
its patience that the turn has not come (Busy) and asks again; the export keeps its place meanwhile, as long as it is
asked for again within the linger's time. So no connection stands open for as long as a queue is. A range that has the
same image exported again and again waits for each export that it cannot join (`export_pacing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple

from events.task_group import TaskGroup
from services.core.archives.layout import BLOCK_BYTES, END, ArchivePlan, Entry, layer_entry, padding, plan_archive
from services.core.deployments.offers import Layout, Offer
from services.core.images.references import Reference
from services.errors import CyroidError, NoSpace, TransferFailed
from services.ports import Chunks
from services.runtime.telemetry import get_logger
from services.tar_server.export_pacing import Busy, ExportPacing
from services.tar_server.image_reader import ImageReader, ReadableImage
from services.tar_server.size_estimate import SizeEstimate
from services.tar_server.spool import Spool, SpoolFolder

log = get_logger(role="tar-server")


class ExportKey(NamedTuple):
    """The key of an export: two archives with the same key have the same bytes. `named` are the blobs left out."""

    reference: str
    image_id: str
    held: tuple[str, ...]
    layout: Layout
    named: tuple[str, ...] = ()

    @classmethod
    def of(cls, offer: Offer) -> ExportKey:
        return cls(offer.reference, offer.image_id, tuple(sorted(offer.held)), offer.layout, offer.named)


class Export:
    """One archive on its way into its spool. `opened` gives the spool once the archive's length is known.

    `waits_for` says what it waits for, in words, until it is at work.
    """

    def __init__(self, offer: Offer, linger_seconds: float) -> None:
        self.offer = offer
        self.opened: asyncio.Future[Spool] = asyncio.get_running_loop().create_future()
        self.waits_for: str | None = "a free export slot"
        self._linger = linger_seconds
        self._readers = 0
        self._changed = asyncio.Event()

    def count(self, change: int) -> None:
        """Note that a reader came (+1) or left (-1)."""
        self._readers += change
        self._changed.set()

    def hurry(self) -> None:
        """End with the last reader, without waiting for another."""
        self._linger = 0

    def fail(self, problem: CyroidError) -> None:
        """Tell all readers that the export failed, and end without a linger."""
        self._linger = 0
        if not self.opened.done():
            self.opened.set_exception(problem)
            self.opened.exception()  # a reader that left meanwhile need not hear of it
        elif self.opened.exception() is None:
            self.opened.result().fail(problem)
        self._changed.set()

    async def deserted(self) -> None:
        """Return when there was no reader for the linger's time; none can join between that and the return."""
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if self._readers else self._linger):
                    await self._changed.wait()
            except TimeoutError:
                if not self._readers:
                    return

    async def released(self) -> None:
        """Return when no reader is left."""
        while self._readers:
            self._changed.clear()
            await self._changed.wait()


class Exports:
    """All running exports, at most `limit` of them reading at a time."""

    def __init__(
        self,
        *,
        reader: ImageReader,
        folder: SpoolFolder,
        limit: int,
        linger_seconds: float = 10,
        patience_seconds: float = 20,
    ) -> None:
        self._reader = reader
        self._folder = folder
        self._slots = asyncio.Semaphore(limit)
        self._linger = linger_seconds
        self._patience = patience_seconds
        self._pacing = ExportPacing(patience_seconds)
        self._running: dict[ExportKey, Export] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        self._group: TaskGroup | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Exports can be joined inside; leaving stops them all and frees their disk space."""
        left = self._folder.clean()
        if left:
            log.info("removed spools that an earlier run left", files=left)
        try:
            async with TaskGroup() as group:
                self._group = group
                yield
                self._group = None
                for keeping in self._keeping:
                    keeping.cancel()
        finally:
            self._group = None

    @asynccontextmanager
    async def join(self, offer: Offer) -> AsyncIterator[Spool]:
        """The spool of the archive that `offer` names; it stays while inside.

        Raises NotFound, NoSpace, Unavailable (Busy among them) or TransferFailed before there is a first byte.
        """
        key = ExportKey.of(offer)
        if key not in self._running:
            await self._pacing.may_begin(offer, lambda: key in self._running)
        if self._group is None:
            raise TransferFailed("the tar server is stopping: ask again")
        export = self._running.get(key)
        if export is None:
            export = self._running[key] = Export(offer, self._linger)
            keeping = self._group.create_task(self._run(self._group, key, export))
            self._keeping.add(keeping)
            keeping.add_done_callback(self._keeping.discard)
        export.count(+1)
        try:
            yield await self._turn(export)
        finally:
            export.count(-1)

    def unwanted(self, offer: Offer) -> None:
        """End the export with its readers: no range needs it any more. A later reader gets a new one."""
        if (export := self._running.get(ExportKey.of(offer))) is not None:
            export.hurry()

    async def _turn(self, export: Export) -> Spool:
        while True:
            try:
                async with asyncio.timeout(self._patience):
                    return await asyncio.shield(export.opened)
            except TimeoutError:
                if export.waits_for is not None:
                    raise Busy(f"the export waits for {export.waits_for}: ask again with the same offer") from None

    async def _run(self, group: TaskGroup, key: ExportKey, export: Export) -> None:
        filling = group.create_task(self._fill(key, export), name=f"export {key.reference}")
        try:
            await export.deserted()
        finally:
            self._forget(key, export)
            filling.cancel()
            await asyncio.wait([filling])
            export.fail(TransferFailed("the export was stopped: ask again"))
            if export.opened.exception() is None:
                await export.released()
                export.opened.result().close()

    def _forget(self, key: ExportKey, export: Export) -> None:
        if self._running.get(key) is export:
            del self._running[key]

    async def _fill(self, key: ExportKey, export: Export) -> None:
        """Write the whole archive. An error goes to the readers; the next reader starts a new export."""
        try:
            async with self._slots:
                export.waits_for = None
                image = await self._reader.open(key.reference, key.image_id, key.held)
                plan = await self._plan(export.offer, image)
                total_bytes = plan.total_bytes if plan is not None else None
                spool = await self._room(export, total_bytes, image.room(key.held))
                try:
                    await write_archive(export.offer, plan, image, spool, lambda: export.opened.set_result(spool))
                finally:
                    if not export.opened.done():
                        spool.close()
            log.info("exported", image=key.reference, layout=key.layout, layers=len(key.held), bytes=spool.end)
        except CyroidError as problem:
            log.warning("an export failed", image=key.reference, code=problem.code, why=str(problem))
            self._forget(key, export)
            if not export.opened.done():
                self._pacing.take_back(export.offer)
            export.fail(problem)
        except Exception as problem:  # one archive that goes wrong in an unforeseen way ends alone
            log.exception("an export failed in an unforeseen way", image=key.reference)
            self._forget(key, export)
            export.fail(TransferFailed(f"the export failed: {problem!r}", code="unexpected"))

    async def _plan(self, offer: Offer, image: ReadableImage) -> ArchivePlan | None:
        """The plan of the archive. None where an OCI manifest has to wait for the sizes of the archive's layers."""
        unknown = [diff_id for diff_id, size in image.sizes.items() if size is None]
        if offer.layout == "docker" or not unknown:
            return plan_for(offer, image.config, image.sizes)
        named = {layer.diff_id for layer in offer.layers}
        for diff_id in unknown:
            if diff_id not in offer.held and diff_id not in named:
                async with aclosing(image.layer(diff_id)) as chunks:
                    image.sizes[diff_id] = sum([len(chunk) async for chunk in chunks])
        return None

    async def _room(self, export: Export, total_bytes: int | None, room: SizeEstimate) -> Spool:
        """A spool, as soon as there is space. Raises NoSpace if there can never be enough."""
        least_bytes = room.least_bytes if total_bytes is None else total_bytes
        while True:
            try:
                return self._folder.open(total_bytes, least_bytes=least_bytes, likely_bytes=room.likely_bytes)
            except NoSpace as full:
                if not self._folder.may_have_space(least_bytes):
                    raise
                export.waits_for = f"room: {full}"
                await self._folder.given_back()
                export.waits_for = None


def plan_for(offer: Offer, config: bytes, sizes: Mapping[str, int | None]) -> ArchivePlan:
    """The plan of the archive that `offer` names."""
    return plan_archive(
        layout=offer.layout,
        reference=offer.reference,
        familiar=Reference.parse(offer.reference).familiar,
        config=config,
        diff_ids=offer.diff_ids,
        held=set(offer.held),
        sizes=sizes,
        blobs={layer.diff_id: layer for layer in offer.layers},
    )


async def write_archive(
    offer: Offer, plan: ArchivePlan | None, image: ReadableImage, spool: Spool, begun: Callable[[], None]
) -> None:
    """Write what says what the image is, then the layers; or the other way round where there is no plan yet.

    `begun` is called when the first layer has been opened: an engine that refuses to save does so before that.
    """
    sizes = dict(image.sizes)
    async with aclosing(image.layers(list(dict.fromkeys(offer.held)))) as layers:
        layer = await anext(layers, None)
        begun()
        for entry in plan.described if plan is not None else ():
            await _write_file(entry, spool)
        while layer is not None:
            entry = layer_entry(offer.layout, layer.diff_id, layer.size_bytes)
            sizes[layer.diff_id] = await _write_layer(entry, layer.chunks, spool)
            layer = await anext(layers, None)
    if plan is None:
        for entry in plan_for(offer, image.config, sizes).described:
            await _write_file(entry, spool)
    await spool.write(END)
    spool.finish()


async def _write_file(entry: Entry, spool: Spool) -> None:
    content = entry.content or b""
    await spool.write(entry.header(len(content)) + content + padding(len(content)))


async def _write_layer(entry: Entry, chunks: Chunks, spool: Spool) -> int:
    """Write one layer; its size. One of unknown size becomes visible once its header is right."""
    known = entry.size_bytes is not None
    start = spool.end
    await spool.write(entry.header(entry.size_bytes or 0), publish=known)
    async for chunk in chunks:
        await spool.write(chunk, publish=known)
    size = spool.end - start - BLOCK_BYTES
    if not known:
        await spool.rewrite(entry.header(size), start)
    elif size != entry.size_bytes:
        raise TransferFailed(f"layer {entry.diff_id} has {size} bytes where {entry.size_bytes} were announced")
    await spool.write(padding(size))
    return size
