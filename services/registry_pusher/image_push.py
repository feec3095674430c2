"""Push of one image of the host's engine into the registry, whole, under one repository and tag.

    inspect ─▶ config ─▶ the tag's manifest names this config, and all its blobs are there? done: present
                     └─▶ layers (`layer_push`), config blob beside them ─▶ still the same image? ─▶ manifest, tag last

The manifest is written here, so nothing is visible under the tag before everything it names is there, and the config
digest is the host's image id. What no layer source gives is left to the engine's own push.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from events.messages import ImagePushed, Layer, PushMethod
from services.content.host_config import host_config
from services.core.images.encodings import MEDIA_TYPES, codec_of
from services.core.images.image import EngineImage
from services.core.images.manifests import OCI_CONFIG, Descriptor, Manifest, check_config_size, sha256
from services.core.images.references import Reference
from services.errors import BadInput, LayerDamaged, LayerUnreadable, NotFound, Rebuilt, TransferFailed, WrongContent
from services.ports import Engine, LayerSource, Registry, SavedImages
from services.registry_pusher.damage import BlobSizes
from services.registry_pusher.layer_push import LayerPush, together
from services.registry_pusher.progress import ProgressCounters
from services.runtime import metrics
from services.runtime.telemetry import get_logger

#: How often an image may be rebuilt under a push before the push is given up for this time.
_REBUILDS = 3
#: By the name of the last source used; a push that sent no layer counts as the best way.
_METHODS: dict[str, PushMethod] = {"layers": "layers", "blobs": "blobs", "save": "save"}


class ImagePush:
    """Pushes images with `push`. `engine_registry` is the registry's address as the host's engine reaches it; with None
    the engine is never asked to push by itself.
    """

    def __init__(
        self,
        *,
        engine: SavedImages,
        registry: Registry,
        sources: Sequence[LayerSource],
        layers: LayerPush,
        engine_registry: str | None,
        manifest_pauses: Sequence[float] = (0.2, 1.0),
        sizes: BlobSizes | None = None,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._sizes = sizes or BlobSizes(registry)
        self._sources = sources
        self._layers = layers
        self._engine_registry = engine_registry
        self._manifest_pauses = tuple(manifest_pauses)
        self._log = get_logger(role="registry-pusher")

    async def push(
        self,
        text: str,
        *,
        image_id: str | None = None,
        changed: Callable[[ProgressCounters], None] = lambda counters: None,
    ) -> ImagePushed:
        """Push what the host's engine has under a reference now.

        image_id  what the caller wants it to be; Rebuilt if the engine has another content there
        Raises NotFound, Rebuilt, TransferFailed, LayerUnreadable, WrongContent, NoSpace, Unavailable.
        """
        started = time.monotonic()
        reference = Reference.parse(text)
        for _ in range(_REBUILDS):
            image = await self._inspect(reference)
            config = await self._config(image)
            found = image.image_id or sha256(config or b"")
            if image_id is not None and found != image_id:
                raise Rebuilt(f"{reference.familiar} is {found} now, not {image_id}: it was rebuilt; ask again")
            pushed = await self._push(reference, image, found, config, ProgressCounters(changed=changed))
            if pushed is not None:
                return msgspec.structs.replace(pushed, seconds=round(time.monotonic() - started, 3))
        raise Rebuilt(f"{reference.familiar} was rebuilt {_REBUILDS} times while it was pushed; push it again later")

    async def present(self, reference: Reference, image_id: str, diff_ids: Sequence[str]) -> ImagePushed | None:
        """What the registry has under the reference, if its content is this image. Raises BadInput.

        A manifest that cannot be read is none: a push writes it anew, or finds that it is damaged.
        """
        try:
            found = await self._registry.manifest(reference.repository, reference.registry_tag)
        except (BadInput, TransferFailed):
            return None  # an index, what some other program left there, or a damaged one: a push replaces it
        if found is None or found[1].body.config.digest != image_id:
            return None
        descriptor, manifest = found
        check_config_size(manifest.body.config.size, reference.familiar)
        if len(manifest.body.layers) != len(diff_ids):
            return None
        layers = tuple(
            Layer(digest=blob.digest, diff_id=diff_id, size_bytes=blob.size, codec=codec_of(blob.media_type))
            for blob, diff_id in zip(manifest.body.layers, diff_ids, strict=True)
        )
        return ImagePushed(
            reference=str(reference),
            repository=reference.repository,
            tag=reference.registry_tag,
            manifest_digest=descriptor.digest,
            image_id=image_id,
            layers=layers,
            reused_bytes=sum(layer.size_bytes for layer in set(layers)),
            method="present",
        )

    async def verified(self, reference: Reference, image: EngineImage) -> ImagePushed | None:
        """What the registry has under the reference, if that is this image and every blob of it has its size."""
        config = await self._config(image)
        present = await self.present(reference, image.image_id or sha256(config or b""), image.diff_ids)
        return present if present is not None and await self._is_whole(present) else None

    # ---- steps ----

    async def _push(
        self, reference: Reference, image: EngineImage, image_id: str, config: bytes | None, counters: ProgressCounters
    ) -> ImagePushed | None:
        """Push the image as it is now. None if it was rebuilt meanwhile, so that all has to be checked again."""
        present = await self.present(reference, image_id, image.diff_ids)
        if present is not None and await self._is_whole(present):
            return present
        try:
            if config is None:
                raise LayerUnreadable(f"no source gives the config of {reference.familiar}")
            layers, used = await self._bring(image, reference.repository, config, counters)
        except LayerUnreadable as problem:
            await self._inspect(reference)  # an image deleted meanwhile is NotFound, and that is the whole story
            if isinstance(problem, LayerDamaged):
                raise  # the engine's push would try for a minute and say the same
            if self._engine_registry is None or not isinstance(self._engine, Engine):
                raise
            place = (self._engine, self._engine_registry)
            return await self._engine_push(place, reference, image, image_id, problem)
        now = await self._inspect(reference)
        if now.local_id != image.local_id:
            return None
        manifest = _manifest(config, layers)
        await self._put_manifest(reference, manifest)
        return ImagePushed(
            reference=str(reference),
            repository=reference.repository,
            tag=reference.registry_tag,
            manifest_digest=manifest.digest,
            image_id=image_id,
            layers=layers,
            sent_bytes=counters.sent_bytes + len(config),
            reused_bytes=counters.reused_bytes,
            method=_METHODS.get(used, "layers"),
        )

    async def _put_manifest(self, reference: Reference, manifest: Manifest) -> None:
        """Put the manifest, and read it back by its digest and by its tag. Raises TransferFailed where it does not
        stay.

        A proxy, or a registry with a faulty disk, may answer 201 and keep nothing: ranges would be told of it.
        """
        for pause in (*self._manifest_pauses, None):
            await self._registry.put_manifest(reference.repository, reference.registry_tag, manifest)
            try:
                found = [
                    await self._registry.manifest(reference.repository, name)
                    for name in (manifest.digest, reference.registry_tag)
                ]
            except (BadInput, TransferFailed):
                found = [None]  # something else is there, or it cannot be read
            if all(one is not None and one[0].digest == manifest.digest for one in found):
                return
            self._log.warning("the registry does not have the manifest that it took", image=str(reference))
            if pause is not None:
                await asyncio.sleep(pause)
        await self._sizes.suspect(manifest.digest)
        raise TransferFailed(
            f"the registry accepted the manifest of {reference.familiar} and does not have it: see whether a proxy"
            " before it, or its storage, keeps what is written",
            code="manifest_lost",
        )

    async def _is_whole(self, pushed: ImagePushed) -> bool:
        """Whether every blob that a living manifest names is there, in the size it says: one that was lost is sent
        again, and a manifest that says a wrong size is written again. Raises BlobDamaged."""
        sizes: dict[str, int | None] = {layer.digest: layer.size_bytes for layer in pushed.layers}
        lost: list[str] = []

        async def note_if_lost(digest: str, expected: int | None) -> None:
            found = await self._registry.blob_size(pushed.repository, digest)
            if found is None or not await self._sizes.agrees(pushed.repository, digest, found, expected):
                lost.append(digest)

        await together(note_if_lost(*blob) for blob in {pushed.image_id: None, **sizes}.items())
        if lost:
            self._log.warning("the registry lost blobs of an image", image=pushed.reference, blobs=lost)
        return not lost

    async def _bring(
        self, image: EngineImage, repository: str, config: bytes, counters: ProgressCounters
    ) -> tuple[tuple[Layer, ...], str]:
        """Push layers and config at the same time: a small push is a matter of round trips."""
        brought: list[tuple[tuple[Layer, ...], str]] = []

        async def layers() -> None:
            brought.append(await self._layers.bring(image, repository, counters))

        await together((layers(), self._put_config(repository, config)))
        return brought[0]

    async def _inspect(self, reference: Reference) -> EngineImage:
        image = await self._engine.inspect(str(reference))
        if image is None:
            raise NotFound(
                f"the host's engine has no image {reference.familiar} (any more)", hint="cyroid-images images ls"
            )
        return image

    async def _config(self, image: EngineImage) -> bytes | None:
        """The config JSON; None if no source gives it and the engine can push without it."""
        try:
            return await host_config(self._sources, image)
        except LayerUnreadable:
            if image.image_id is None:
                raise
            return None

    async def _put_config(self, repository: str, config: bytes) -> None:
        digest = sha256(config)
        if await self._registry.blob_size(repository, digest) is None:
            await self._registry.put_blob(repository, digest, len(config), _once(config))

    async def _engine_push(
        self,
        place: tuple[Engine, str],
        reference: Reference,
        image: EngineImage,
        image_id: str,
        why: LayerUnreadable,
    ) -> ImagePushed:
        """The engine's own push, under a name for the registry that is removed afterwards in any case.

        A name under the registry's own address is ours, also one that a killed push left: it is removed as
        well.
        """
        engine, registry = place
        name = f"{registry}/{reference.repository}:{reference.registry_tag}"
        self._log.warning("the engine pushes this image itself", image=str(reference), why=str(why))
        metrics.source_fallbacks.labels(source="all", reason=why.code).inc()
        ours = Reference.parse(name) != reference
        if ours:
            await engine.tag(image.local_id, name)
        try:
            async with engine.push(name) as lines:
                async for _ in lines:
                    pass
        finally:
            if ours:
                await engine.untag(name)
        pushed = await self.present(reference, image_id, image.diff_ids)
        if pushed is None:
            raise WrongContent(f"the engine pushed {reference.familiar}, but the registry has no such image there")
        await self._layers.adopt(pushed.layers, pushed.repository)
        sent_bytes = sum(layer.size_bytes for layer in set(pushed.layers))
        return msgspec.structs.replace(pushed, method="docker_push", sent_bytes=sent_bytes, reused_bytes=0)


def _manifest(config: bytes, layers: Sequence[Layer]) -> Manifest:
    return Manifest.write(
        Descriptor(media_type=OCI_CONFIG, digest=sha256(config), size=len(config)),
        tuple(
            Descriptor(media_type=MEDIA_TYPES[layer.codec], digest=layer.digest, size=layer.size_bytes)
            for layer in layers
        ),
    )


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
