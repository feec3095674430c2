"""Gets one image of the host's engine into the registry, whole, under one repository and tag.

    inspect ─▶ config ─▶ the tag's manifest names this config, and all its blobs are there? done: present
                     └─▶ layers (`layer_push`), config blob beside them ─▶ still the same image? ─▶ manifest, tag last

The manifest is written here, so nothing is visible under the tag before everything it names is there, and the config
digest is the host's image id. What no layer source gives is left to the engine's own push.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from events.messages import ImagePushed, Layer, PushMethod
from services import metrics
from services.core.codecs import MEDIA_TYPES, codec_of
from services.core.images import EngineImage
from services.core.manifests import OCI_CONFIG, Descriptor, ImageConfig, Manifest, sha256
from services.core.references import Reference
from services.errors import BadInput, LayerDamaged, LayerUnreadable, NotFound, Rebuilt, WrongContent
from services.ports import Engine, LayerSource, Registry
from services.pushing.layer_push import MISMATCH, LayerPush, together
from services.pushing.tally import Tally
from services.telemetry import get_logger

#: How often an image may be rebuilt under a push before the push is given up for this time.
_REBUILDS = 3
#: By the name of the last source used; a push that sent no layer counts as the best way.
_METHODS: dict[str, PushMethod] = {"layers": "layers", "blobs": "blobs", "save": "save"}


class ImagePush:
    """`push` is the whole of it. `engine_registry` is the registry's address as the host's engine reaches it."""

    def __init__(
        self,
        *,
        engine: Engine,
        registry: Registry,
        sources: Sequence[LayerSource],
        layers: LayerPush,
        engine_registry: str,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._sources = sources
        self._layers = layers
        self._engine_registry = engine_registry
        self._log = get_logger(role="registry-pusher")

    async def push(
        self, text: str, *, image_id: str | None = None, changed: Callable[[Tally], None] = lambda tally: None
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
            pushed = await self._push(reference, image, found, config, Tally(changed=changed))
            if pushed is not None:
                return msgspec.structs.replace(pushed, seconds=round(time.monotonic() - started, 3))
        raise Rebuilt(f"{reference.familiar} was rebuilt {_REBUILDS} times while it was pushed; push it again later")

    async def present(self, reference: Reference, image_id: str, diff_ids: Sequence[str]) -> ImagePushed | None:
        """What the registry has under the reference, if its content is this image."""
        try:
            found = await self._registry.manifest(reference.repository, reference.registry_tag)
        except BadInput:
            return None  # an index, or what some other program left there: a push replaces it
        if found is None or found[1].body.config.digest != image_id:
            return None
        descriptor, manifest = found
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

    # ---- steps ----

    async def _push(
        self, reference: Reference, image: EngineImage, image_id: str, config: bytes | None, tally: Tally
    ) -> ImagePushed | None:
        """None if the image was rebuilt meanwhile, so that all is to be looked at again."""
        present = await self.present(reference, image_id, image.diff_ids)
        if present is not None and await self._is_whole(present):
            return present
        try:
            if config is None:
                raise LayerUnreadable(f"no source gives the config of {reference.familiar}")
            layers, used = await self._bring(image, reference.repository, config, tally)
        except LayerUnreadable as problem:
            await self._inspect(reference)  # an image deleted meanwhile is NotFound, and that is the whole story
            if isinstance(problem, LayerDamaged):
                raise  # the engine's push would try for a minute and say the same
            return await self._engine_push(reference, image, image_id, problem)
        now = await self._inspect(reference)
        if now.local_id != image.local_id:
            return None
        manifest = _manifest(config, layers)
        await self._registry.put_manifest(reference.repository, reference.registry_tag, manifest)
        return ImagePushed(
            reference=str(reference),
            repository=reference.repository,
            tag=reference.registry_tag,
            manifest_digest=manifest.digest,
            image_id=image_id,
            layers=layers,
            sent_bytes=tally.sent_bytes + len(config),
            reused_bytes=tally.reused_bytes,
            method=_METHODS.get(used, "layers"),
        )

    async def _is_whole(self, pushed: ImagePushed) -> bool:
        """Whether every blob that a living manifest names is there: one that was lost is sent again."""
        digests = dict.fromkeys([pushed.image_id, *(layer.digest for layer in pushed.layers)])
        lost: list[str] = []

        async def look(digest: str) -> None:
            if await self._registry.blob_size(pushed.repository, digest) is None:
                lost.append(digest)

        await together(look(digest) for digest in digests)
        if lost:
            self._log.warning("the registry lost blobs of an image", image=pushed.reference, blobs=lost)
        return not lost

    async def _bring(
        self, image: EngineImage, repository: str, config: bytes, tally: Tally
    ) -> tuple[tuple[Layer, ...], str]:
        """Layers and config, at the same time: a small push is a matter of round trips."""
        brought: list[tuple[tuple[Layer, ...], str]] = []

        async def layers() -> None:
            brought.append(await self._layers.bring(image, repository, tally))

        await together((layers(), self._put_config(repository, config)))
        return brought[0]

    async def _inspect(self, reference: Reference) -> EngineImage:
        image = await self._engine.inspect(str(reference))
        if image is None:
            raise NotFound(
                f"the host's engine has no image {reference.familiar} (any more); `cyroid-images images ls` lists them"
            )
        return image

    async def _config(self, image: EngineImage) -> bytes | None:
        """The config JSON, verified against what the engine says of the image; None if no source gives it."""
        for source in self._sources:
            try:
                config = await source.config(image)
            except MISMATCH as problem:
                self._log.warning("a layer source does not give a config", source=source.name, why=str(problem))
                metrics.source_fallbacks.labels(source=source.name, reason=problem.code).inc()
                continue
            wrong = image.image_id is not None and sha256(config) != image.image_id
            if not wrong and ImageConfig.parse(config).rootfs.diff_ids == image.diff_ids:
                return config
            self._log.warning("a layer source gives another image's config", source=source.name, image=image.local_id)
            metrics.source_fallbacks.labels(source=source.name, reason=WrongContent.code).inc()
        if image.image_id is None:
            raise LayerUnreadable(f"no source gives the config of {image.local_id}, and its engine does not name it")
        return None

    async def _put_config(self, repository: str, config: bytes) -> None:
        digest = sha256(config)
        if await self._registry.blob_size(repository, digest) is None:
            await self._registry.put_blob(repository, digest, len(config), _once(config))

    async def _engine_push(
        self, reference: Reference, image: EngineImage, image_id: str, why: LayerUnreadable
    ) -> ImagePushed:
        """The engine's own push, under a name for the registry that is gone afterwards whatever happens.

        A name under the registry's own address is ours, also one that a push left which was killed: it goes as well.
        """
        name = f"{self._engine_registry}/{reference.repository}:{reference.registry_tag}"
        self._log.warning("the engine pushes this image itself", image=str(reference), why=str(why))
        metrics.source_fallbacks.labels(source="all", reason=why.code).inc()
        ours = Reference.parse(name) != reference
        if ours:
            await self._engine.tag(image.local_id, name)
        try:
            async with self._engine.push(name) as lines:
                async for _ in lines:
                    pass
        finally:
            if ours:
                await self._engine.untag(name)
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
