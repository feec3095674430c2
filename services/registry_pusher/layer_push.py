"""Push of the layers of one image into one repository: checks, mounts, and sends only what is missing.

    known form ─▶ HEAD in the repository ─▶ mount from a repository that may have it ─▶ read and send it

Sources are tried best first; a layer that one cannot give, or gives wrongly, goes to the next. A raw layer is verified
by the registry, whose digest of the upload must be the diff ID; a compressed one is hashed here on the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from events.messages import Layer
from events.task_group import TaskGroup
from services.core.images.encodings import RAW, CodecSetting, LayerEncoding, choose
from services.core.images.image import EngineImage
from services.errors import LayerDamaged, LayerUnreadable, WrongContent
from services.ports import BlobSource, Chunks, LayerSource, OpenLayer, Registry, SequentialSource
from services.registry_pusher.compression import CompressedLayer, head_of, samples_of
from services.registry_pusher.damage import BlobSizes, expected_size, told_size
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.progress import Counted, ProgressCounters
from services.runtime import metrics
from services.runtime.telemetry import get_logger

MISMATCH = (LayerUnreadable, WrongContent)


async def nobody_has_zstd() -> bool:
    """The assumption that no range reads zstd, where nothing else is known."""
    return False


@dataclass(slots=True)
class Work:
    """The push of one image: which layers are in the registry, and which are still missing (diff ID → encoding)."""

    image: EngineImage
    repository: str
    counters: ProgressCounters
    layers: dict[str, Layer] = field(default_factory=dict)
    missing: dict[str, LayerEncoding | None] = field(default_factory=dict)


class LayerPush:
    """Pushes layers with `bring`. One per process: it prevents two pushes from sending one layer at the same time."""

    def __init__(
        self,
        *,
        registry: Registry,
        sources: Sequence[LayerSource],
        encodings: LayerEncodings,
        parallel_layers: int = 3,
        layer_codec: CodecSetting = "raw",
        all_read_zstd: Callable[[], Awaitable[bool]] = nobody_has_zstd,
        sizes: BlobSizes | None = None,
    ) -> None:
        self._registry = registry
        self._blob_sizes = sizes or BlobSizes(registry)
        self._sources = sources
        self._encodings = encodings
        self._parallel = parallel_layers
        self._codec: CodecSetting = layer_codec
        self._all_read_zstd = all_read_zstd
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._log = get_logger(role="registry-pusher")

    async def bring(
        self, image: EngineImage, repository: str, counters: ProgressCounters
    ) -> tuple[tuple[Layer, ...], str]:
        """Bring all layers into `repository`. Returns them base first, and the name of the last source used ("" if
        none).

        Raises LayerUnreadable when no source gives a layer that is missing, LayerDamaged when the engine itself
        cannot.
        """
        work = Work(image, repository, counters)
        distinct = tuple(dict.fromkeys(image.diff_ids))
        counters.expect(distinct)
        encodings = await self._encodings.known(distinct)
        await together(self._look(work, diff_id, encodings.get(diff_id)) for diff_id in distinct)
        used = ""
        for source in self._sources:
            if not work.missing:
                break
            before = len(work.missing)
            if isinstance(source, SequentialSource):
                await self._in_one_pass(work, source)
            else:
                await self._side_by_side(work, source)
            used = source.name if len(work.missing) < before else used
        if work.missing:
            raise LayerUnreadable(f"no source gives the layers {', '.join(work.missing)} of {image.local_id}")
        return tuple(work.layers[diff_id] for diff_id in image.diff_ids), used

    async def adopt(self, layers: Iterable[Layer], repository: str) -> None:
        """Fix the encodings of the layers that the engine's own push brought, so that the next image finds them."""
        for layer in dict.fromkeys(layers):
            form = (
                RAW
                if layer.codec == "raw"
                else LayerEncoding(
                    codec=layer.codec, digest=layer.digest, size_bytes=layer.size_bytes, repository=repository
                )
            )
            await self._encodings.fix(layer.diff_id, form)
            self._encodings.note(layer.diff_id, repository)

    # ---- looking ----

    async def _look(self, work: Work, diff_id: str, form: LayerEncoding | None) -> bool:
        """Sort the layers into `layers`, which the registry has, and `missing`, which it has not."""
        layer = await self._found(work, diff_id, form or RAW)
        if layer is None:
            work.missing[diff_id] = form
            return False
        self._placed(work, layer)
        work.counters.reused_bytes += layer.size_bytes
        return True

    async def _arrived(self, work: Work, diff_id: str) -> bool:
        """Whether another image's push has brought the layer while this one waited."""
        encodings = await self._encodings.known((diff_id,))
        return await self._look(work, diff_id, encodings.get(diff_id))

    async def _found(self, work: Work, diff_id: str, form: LayerEncoding) -> Layer | None:
        """Raises BlobDamaged for one that is there and is not what it should be."""
        repository, digest = work.repository, form.blob(diff_id)
        if digest is None:
            return None
        size_bytes = await self._registry.blob_size(repository, digest)
        if size_bytes is None:
            hints = await self._encodings.places(diff_id, but=repository)
            for place in dict.fromkeys([*hints, *([form.repository] if form.repository else [])]):
                if await self._registry.mount_blob(repository, digest, place):
                    size_bytes = await self._registry.blob_size(repository, digest)
                    break
        if size_bytes is None:
            return None
        await self._blob_sizes.agrees(
            repository, digest, size_bytes, await expected_size(self._sources, work.image, diff_id, form)
        )
        return form.layer(diff_id, digest, size_bytes)

    def _placed(self, work: Work, layer: Layer) -> None:
        work.layers[layer.diff_id] = layer
        work.missing.pop(layer.diff_id, None)
        self._encodings.note(layer.diff_id, work.repository)
        work.counters.placed(layer.diff_id, layer.size_bytes)

    # ---- reading ----

    async def _side_by_side(self, work: Work, source: LayerSource) -> None:
        """Send layers concurrently, large ones first: a small one that starts last does not keep the others waiting."""
        sizes: dict[str, int] = {}
        for diff_id in work.missing:
            size_bytes = await told_size(source, work.image, diff_id)
            sizes[diff_id] = size_bytes or 0
            work.counters.total_bytes += size_bytes or 0
        slots = asyncio.Semaphore(self._parallel)

        async def one(diff_id: str) -> None:
            async with slots:
                try:
                    await self._one(work, source, diff_id, sizes[diff_id] or None)
                except MISMATCH as problem:
                    work.counters.total_bytes -= sizes[diff_id]
                    self._fall_through(source, diff_id, problem)

        await together(one(diff_id) for diff_id in sorted(sizes, key=lambda diff_id: -sizes[diff_id]))

    async def _one(self, work: Work, source: LayerSource, diff_id: str, size_bytes: int | None) -> None:
        async with self._turns.setdefault(diff_id, asyncio.Lock()):
            if self._encodings.noted(diff_id) and await self._arrived(work, diff_id):
                return
            if isinstance(source, BlobSource) and await self._as_it_lies(work, source, diff_id):
                return
            form = await self._form(work, source, diff_id)
            async with source.layer(work.image, diff_id) as chunks:
                await self._send(work, OpenLayer(diff_id, size_bytes, chunks), form)

    async def _as_it_lies(self, work: Work, source: BlobSource, diff_id: str) -> bool:
        """Send the blob that the engine keeps, if its encoding is the layer's in the registry, or becomes it now."""
        blob = await source.blob(work.image, diff_id)
        if blob is None or (blob.codec == "zstd" and not await self._all_read_zstd()):
            return False
        form = LayerEncoding(
            codec=blob.codec, digest=blob.digest, size_bytes=blob.size_bytes, repository=work.repository
        )
        fixed = work.missing[diff_id] or await self._encodings.fix(diff_id, form)
        if fixed.codec != blob.codec or fixed.blob(diff_id) != blob.digest:
            return False
        if await self._look(work, diff_id, fixed):
            return True
        async with source.stored(blob) as chunks:
            await self._send(work, OpenLayer(diff_id, blob.size_bytes, chunks), fixed, blob=blob)
        return True

    async def _in_one_pass(self, work: Work, source: SequentialSource) -> None:
        try:
            async with source.layers(work.image, tuple(work.missing)) as opened:
                async for layer in opened:
                    work.counters.total_bytes += layer.size_bytes or 0
                    form, chunks = await self._form_in_passing(work, layer)
                    await self._send(work, OpenLayer(layer.diff_id, layer.size_bytes, chunks), form)
        except MISMATCH as problem:
            self._fall_through(source, "", problem)
            if isinstance(problem, LayerDamaged):
                raise

    def _fall_through(self, source: LayerSource, diff_id: str, problem: LayerUnreadable | WrongContent) -> None:
        self._log.warning("a layer source does not give a layer", source=source.name, layer=diff_id, why=str(problem))
        metrics.source_fallbacks.labels(source=source.name, reason=problem.code).inc()

    # ---- sending ----

    async def _form(self, work: Work, source: LayerSource, diff_id: str) -> LayerEncoding:
        """The layer's encoding, fixed now if this is its first push."""
        form = work.missing[diff_id]
        if form is not None:
            return form
        samples: list[bytes] = []
        all_read_zstd = self._codec != "raw" and await self._all_read_zstd()
        if all_read_zstd:
            async with source.layer(work.image, diff_id) as chunks:
                samples = await samples_of(chunks)
        return await self._encodings.fix(diff_id, choose(self._codec, all_read_zstd=all_read_zstd, samples=samples))

    async def _form_in_passing(self, work: Work, layer: OpenLayer) -> tuple[LayerEncoding, Chunks]:
        """The encoding of a layer that streams by once: it is probed by its first megabytes, which are kept so long."""
        form = work.missing[layer.diff_id]
        if form is not None:
            return form, layer.chunks
        samples: list[bytes] = []
        chunks = layer.chunks
        all_read_zstd = self._codec != "raw" and await self._all_read_zstd()
        if all_read_zstd:
            samples, chunks = await head_of(layer.chunks)
        chosen = choose(self._codec, all_read_zstd=all_read_zstd, samples=samples)
        return await self._encodings.fix(layer.diff_id, chosen), chunks

    async def _send(self, work: Work, layer: OpenLayer, form: LayerEncoding, *, blob: Layer | None = None) -> None:
        """Upload one layer in its encoding, or as the `blob` that the chunks are."""
        counted = Counted(work.counters, layer)
        try:
            if blob is not None:
                await self._registry.put_blob(work.repository, blob.digest, blob.size_bytes, counted.chunks())
                sent = blob
            elif form.codec != "zstd":
                await self._registry.put_blob(work.repository, layer.diff_id, layer.size_bytes, counted.chunks())
                sent = RAW.layer(layer.diff_id, layer.diff_id, counted.read_bytes)
                if form.codec == "gzip":  # somebody else's, gone, and not to be made again: from now on it is raw
                    await self._encodings.measured(layer.diff_id, RAW, replaces=form.digest)
            else:
                sent = await self._send_compressed(work, layer.diff_id, counted.chunks(), form)
        except BaseException:
            counted.take_back()
            raise
        work.counters.sent_bytes += sent.size_bytes
        self._placed(work, sent)

    async def _send_compressed(self, work: Work, diff_id: str, chunks: Chunks, form: LayerEncoding) -> Layer:
        compressed = CompressedLayer(diff_id, form.level)
        await self._registry.put_blob(work.repository, lambda: compressed.digest, None, compressed.chunks(chunks))
        measured = LayerEncoding(
            codec=form.codec,
            level=form.level,
            digest=compressed.digest,
            size_bytes=compressed.size_bytes,
            repository=work.repository,
        )
        holds = await self._encodings.measured(diff_id, measured, replaces=form.digest)
        if holds != measured:  # somebody else was first, with another library's zstd: theirs is the layer
            found = await self._found(work, diff_id, holds)
            if found is not None:
                return found
        return measured.layer(diff_id, compressed.digest, compressed.size_bytes)


async def together(steps: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Run all concurrently; the first error cancels the others and is raised as itself."""
    failure: Exception | None = None
    try:
        async with TaskGroup() as tasks:
            for step in steps:
                tasks.create_task(step)
    except ExceptionGroup as group:
        failure = group.exceptions[0]
    if failure is not None:
        raise failure
