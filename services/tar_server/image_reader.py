"""Image reader of an export: reads layers from the registry where it has them, otherwise from the host's engine.

A registry blob with the diff ID as its digest *is* the uncompressed layer, and reading it costs the engine nothing. A
compressed one is unpacked on the way, where no other place has the layer plain. A layer that breaks off half-way, for
whatever reason, goes on from the next place at the same byte: all places hold the same bytes, and the sha256 of the
whole is compared at the end, before the last of them counts. A place whose bytes were others is passed by in the next
archive, and so is a blob of another size than the host's layer. What only a source that is one stream has (`docker
save`) is taken in one pass, in that stream's order.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from services.content.registry_image import manifest_of_config
from services.core.images.image import EngineImage
from services.core.images.manifests import CONFIG_LIMIT_BYTES, Descriptor, ImageConfig, sha256
from services.core.images.references import Reference
from services.errors import BadInput, CyroidError, LayerDamaged, LayerUnreadable, NotFound, Unavailable, WrongContent
from services.ports import Chunks, Engine, LayerSource, OpenLayer, Registry, SequentialSource
from services.runtime import metrics
from services.runtime.telemetry import get_logger
from services.tar_server.size_estimate import SizeEstimate, size_estimate_for
from services.tar_server.stored_image import StoredImage

log = get_logger(role="tar-server")

Place = tuple[str, Callable[[str], AbstractAsyncContextManager[Chunks]]]
#: Layers that a place gave with other bytes, of which the next export knows.
_WRONG_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class ReadableImage:
    """An image that can be read: its config, the size of each layer tar as far as known, and where the layers lie.

    `stream` is a source that gives many layers in one pass, and the image as the host's engine has it. `local` is the
    image there, if it is there; `packed` the sizes of blobs that are kept compressed. `wrong` is told the place and the
    layer where a place gave other bytes.
    """

    config: bytes
    sizes: dict[str, int | None]
    places: dict[str, tuple[Place, ...]]
    stream: tuple[SequentialSource, EngineImage] | None = None
    local: EngineImage | None = None
    packed: Mapping[str, int] = field(default_factory=dict)
    wrong: Callable[[str, str], None] = lambda place, diff_id: None

    def room(self, held: Collection[str]) -> SizeEstimate:
        """How much space an archive of these layers takes, as far as it can be told."""
        local = self.local
        return size_estimate_for(
            held,
            sizes=self.sizes,
            packed=self.packed,
            engine_bytes=local.size_bytes if local is not None else None,
            # A containerd store counts blobs and blocks on the disk. A layer that occurs twice is counted twice.
            counts_files=local is not None
            and local.image_id is not None
            and len(set(local.diff_ids)) == len(local.diff_ids),
        )

    async def layers(self, diff_ids: Sequence[str]) -> AsyncGenerator[OpenLayer, None]:
        """Each of `diff_ids` once: first what can be read by itself, then the rest in one pass of the stream."""
        alone = [diff_id for diff_id in diff_ids if self.places[diff_id]]
        for diff_id in alone:
            yield OpenLayer(diff_id, self.sizes[diff_id], self.layer(diff_id))
        together = [diff_id for diff_id in diff_ids if not self.places[diff_id]]
        if together and self.stream is not None:
            source, image = self.stream
            async with source.layers(image, together) as opened:
                async for layer in opened:
                    chunks = _verified(layer.chunks, layer.diff_id, source.name)
                    yield OpenLayer(layer.diff_id, layer.size_bytes, chunks)

    async def layer(self, diff_id: str) -> AsyncGenerator[bytes, None]:
        """The uncompressed layer tar. Raises WrongContent after the last byte if they were not the right ones."""
        digest, done = hashlib.sha256(), 0
        problem: CyroidError | None = None
        for name, open_layer in self._all_places(diff_id):
            try:
                async with open_layer(diff_id) as chunks:
                    async for chunk in _from(chunks, done):
                        digest.update(chunk)
                        done += len(chunk)
                        yield chunk
            except CyroidError as failed:
                if isinstance(failed, WrongContent):
                    self.wrong(name, diff_id)
                    if done:
                        raise  # what was wrong is in the archive already; the next one is read elsewhere
                log.warning("a layer broke off", layer=diff_id, place=name, at_bytes=done, why=str(failed))
                metrics.source_fallbacks.labels(source=name, reason=failed.code).inc()
                problem = failed
                continue
            if "sha256:" + digest.hexdigest() != diff_id:
                self.wrong(name, diff_id)
                raise WrongContent(f"{name} gave other bytes than layer {diff_id}: check that place's disk")
            return
        raise LayerUnreadable(f"layer {diff_id} can be read nowhere to its end: {problem}") from problem

    def _all_places(self, diff_id: str) -> tuple[Place, ...]:
        if self.stream is None:
            return self.places[diff_id]
        source, image = self.stream
        return (*self.places[diff_id], (source.name, _of(source, image)))


async def _from(chunks: Chunks, offset: int) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if offset >= len(chunk):
            offset -= len(chunk)
        else:
            yield chunk[offset:]
            offset = 0


async def _verified(chunks: Chunks, diff_id: str, place: str) -> AsyncIterator[bytes]:
    digest = hashlib.sha256()
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if "sha256:" + digest.hexdigest() != diff_id:
        raise WrongContent(f"{place} gave other bytes than layer {diff_id}: check that place's disk")


class ImageReader:
    """Finds images by name and content. Neither the registry nor the engine has to be up, one of them is enough.

    `sources` are the ways to read the host engine's layers, best first.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        sources: Sequence[LayerSource],
        registry: Registry,
        patience_seconds: float = 5,
    ) -> None:
        self._engine = engine
        self._sources = tuple(sources)
        self._registry = registry
        self._patience = patience_seconds
        self._wrong: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def open(self, reference: str, image_id: str, held: Collection[str]) -> ReadableImage:
        """The image under `reference` with that config digest, ready to read the layers in `held`.

        Raises NotFound if it is nowhere, Unavailable if it may be where nobody answers now, or LayerDamaged for a layer
        that only the engine has, and cannot give.
        """
        stored = await self._in_registry(Reference.parse(reference), image_id)
        local, away = await self._on_host(reference, image_id)
        config = stored.config if stored is not None else None
        if local is not None:
            own = await self._config(local, image_id) if config is None else config
            local = local if own is not None else None
            config = own
        if config is None:
            if away is not None:
                raise away
            where = f"neither the engine beside this tar server nor the registry has {reference} as {image_id}"
            raise NotFound(f"{where}: bring the registry back, or build it again (between hosts: docs/hosts.md)")
        return await self._placed(config, held, local, stored)

    async def _config(self, local: EngineImage, image_id: str) -> bytes | None:
        """The config, from the first source that has it; None where it belongs to another image."""
        problem: LayerUnreadable | None = None
        for source in self._sources:
            try:
                config = await source.config(local)
            except LayerUnreadable as unreadable:
                problem = unreadable
                continue
            return config if sha256(config) == image_id else None
        raise LayerUnreadable(f"no way to read the config of {image_id} on the host's engine: {problem}") from problem

    async def _placed(
        self, config: bytes, held: Collection[str], local: EngineImage | None, stored: StoredImage | None
    ) -> ReadableImage:
        sizes: dict[str, int | None] = {}
        places: dict[str, tuple[Place, ...]] = {}
        streams = [source for source in self._sources if isinstance(source, SequentialSource)] if local else []
        for diff_id in dict.fromkeys((*ImageConfig.parse(config).rootfs.diff_ids, *held)):
            size = await stored.size(diff_id, self._patience) if stored is not None else None
            own, own_size, damaged = await self._own_places(local, diff_id)
            known: list[Place] = list(own)
            if stored is not None and size is None and diff_id in stored.packed:
                known.append(("registry_compressed", stored.unpacked_layer))
            elif stored is not None and size is not None and own_size in (None, size):
                known.insert(0, ("registry", stored.layer))
            trusted = [place for place in known if (place[0], diff_id) not in self._wrong]
            places[diff_id] = tuple(trusted if trusted or streams else known)
            in_registry = any(name == "registry" for name, _ in places[diff_id])
            sizes[diff_id] = size if own_size is None and in_registry else own_size
            if diff_id in held and not known and damaged is not None:
                raise damaged  # the stream comes from the same engine
            if diff_id in held and not known and not streams:
                raise LayerUnreadable(f"no place that can be read now has layer {diff_id}")
        return ReadableImage(
            config,
            sizes,
            places,
            stream=(streams[0], local) if streams and local is not None else None,
            local=local,
            packed={diff_id: blob.size for diff_id, blob in stored.packed.items()} if stored is not None else {},
            wrong=self._note_wrong,
        )

    async def _own_places(
        self, local: EngineImage | None, diff_id: str
    ) -> tuple[list[Place], int | None, LayerDamaged | None]:
        """Where the host's engine has a layer by itself, and its size; why it cannot be given where it is damaged."""
        places: list[Place] = []
        first: int | None = None
        damaged: LayerDamaged | None = None
        for source in self._sources if local is not None else ():
            if isinstance(source, SequentialSource) or local is None:
                continue
            try:
                size = await source.size(local, diff_id)
            except LayerUnreadable as problem:
                log.info("a source cannot read a layer", layer=diff_id, place=source.name, why=str(problem))
                metrics.source_fallbacks.labels(source=source.name, reason=problem.code).inc()
                damaged = problem if isinstance(problem, LayerDamaged) else damaged
                continue
            first = size if first is None else first
            places.append((source.name, _of(source, local)))
        return places, first, damaged

    def _note_wrong(self, place: str, diff_id: str) -> None:
        """The next archive is read elsewhere, if it can be: a damaged blob stays damaged until it is repaired."""
        self._wrong[place, diff_id] = None
        while len(self._wrong) > _WRONG_LIMIT:
            self._wrong.popitem(last=False)

    async def _in_registry(self, reference: Reference, image_id: str) -> StoredImage | None:
        """What the registry has of the image; None also when it does not answer."""
        repository = reference.repository
        try:
            async with asyncio.timeout(self._patience):
                size = await self._registry.blob_size(repository, image_id)
                if size is None or size > CONFIG_LIMIT_BYTES:
                    return None
                async with self._registry.open_blob(repository, image_id) as chunks:
                    config = b"".join([chunk async for chunk in chunks])
                if sha256(config) != image_id:
                    return None
                return StoredImage(self._registry, repository, config, await self._packed(reference, image_id, config))
        except (CyroidError, TimeoutError) as problem:
            log.info("reading from the host alone", repository=repository, why=str(problem) or "no answer")
            return None

    async def _packed(self, reference: Reference, image_id: str, config: bytes) -> dict[str, Descriptor]:
        """Blobs by diff ID, of layers that are kept compressed. Nothing if the tag names other content by now."""
        try:
            found = await manifest_of_config(self._registry, reference.repository, reference.registry_tag, image_id)
        except BadInput:
            return {}  # what some other program left there
        if found is None:
            return {}
        diff_ids, blobs = ImageConfig.parse(config).rootfs.diff_ids, found.body.layers
        if len(diff_ids) != len(blobs):
            return {}
        pairs = zip(diff_ids, blobs, strict=True)
        return {diff_id: blob for diff_id, blob in pairs if blob.digest != diff_id}

    async def _on_host(self, reference: str, image_id: str) -> tuple[EngineImage | None, Unavailable | None]:
        try:
            for name in (image_id, reference):
                image = await self._engine.inspect(name)
                if image is not None and (image.image_id == image_id or image.image_id is None):
                    return image, None
        except Unavailable as problem:
            return None, problem
        return None, None


def _of(source: LayerSource, image: EngineImage) -> Callable[[str], AbstractAsyncContextManager[Chunks]]:
    return lambda diff_id: source.layer(image, diff_id)
