"""Host reclaim: free the host engine's copy of an image once the registry has it whole, and bring it back.

A copy goes only if the registry's own was read back and hashed a moment before: the host's may be the last. The engine
itself refuses to take the last name from an image that a container uses, and nothing here is ever done by force.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing

from events.messages import FetchRequested, ImageFetched, Reclaim
from services.content.bundle import image_archive
from services.content.registry_image import platform_manifest
from services.core.images.image import EngineImage
from services.core.images.manifests import Manifest
from services.core.images.reclaim_rules import fits
from services.core.images.references import Reference
from services.errors import BadInput, BadReference, NotFound, TransferFailed, WrongContent
from services.ports import Engine, Registry
from services.registry_pusher.image_push import ImagePush
from services.runtime import metrics


class HostReclaim:
    """`engine_registry` is the registry's address as the host's engine reaches it."""

    def __init__(self, *, engine: Engine, registry: Registry, push: ImagePush, engine_registry: str) -> None:
        self._engine = engine
        self._registry = registry
        self._push = push
        self._engine_registry = engine_registry

    async def named(self, patterns: Sequence[str]) -> list[tuple[Reference, EngineImage]]:
        """The host's names that the patterns fit, the largest images first. Raises EngineUnavailable."""
        found = []
        for image in await self._engine.images():
            for name in image.references:
                reference = Reference.parse(name)
                if fits(reference, patterns):
                    found.append((reference, image))
        return sorted(found, key=lambda one: (-one[1].size_bytes, str(one[0])))

    async def reclaim(self, reference: Reference, image: EngineImage, *, dry_run: bool) -> Reclaim:
        """Free one name's copy, or say why not. Raises Unavailable."""
        name = str(reference)
        if (why_not := await self._why_not(reference, image)) is not None:
            return Reclaim(reference=name, freed=False, reason=why_not)
        others = [other for other in image.references if other != name]
        if dry_run:
            reason = f"{', '.join(others)} keep the content" if others else "the registry has it"
            return Reclaim(reference=name, freed=True, reason=reason, freed_bytes=0 if others else image.size_bytes)
        try:
            await self._drop_own_names(image)
            await self._engine.untag(name)
        except BadInput as problem:
            return Reclaim(reference=name, freed=False, reason=f"it is in use: {problem}")
        if await self._engine.inspect(image.local_id) is not None:
            return Reclaim(reference=name, freed=True, reason="its name went; others keep the content")
        metrics.reclaimed_bytes.inc(image.size_bytes)
        return Reclaim(reference=name, freed=True, reason="the registry has it", freed_bytes=image.size_bytes)

    async def _why_not(self, reference: Reference, image: EngineImage) -> str | None:
        try:
            if not await self._read_back(reference, image):
                return "the registry does not have this content"
        except TransferFailed as problem:
            return f"the registry's copy cannot be read: {problem}"
        now = await self._engine.inspect(str(reference))
        return None if now is not None and now.local_id == image.local_id else "it was changed meanwhile"

    async def fetch(self, message: FetchRequested) -> ImageFetched:
        """Bring an image back from the registry. Raises NotFound, WrongContent, and what the engine says."""
        began = time.monotonic()
        reference = Reference.parse(message.reference)
        name = str(reference)
        there = await self._engine.inspect(name)
        if there is not None:
            await self._drop_own_names(there)
            return ImageFetched(reference=name, image_id=there.image_id, present=True)
        info = await self._engine.info()
        found = await platform_manifest(self._registry, reference.repository, reference.registry_tag, info.platform)
        if found is None:
            raise NotFound(f"the registry has no image {reference.familiar}", hint="cyroid-images images ls")
        bring = self._load if info.store == "containerd" else self._pull
        await bring(reference, found[1])
        there = await self._engine.inspect(name)
        image_id = found[1].body.config.digest
        if there is None or there.image_id not in (None, image_id):
            raise WrongContent(f"the host's engine has other content than {reference.familiar} in the registry")
        return ImageFetched(reference=name, image_id=image_id, seconds=round(time.monotonic() - began, 3))

    async def _pull(self, reference: Reference, manifest: Manifest) -> None:
        """By digest, from the registry's address; its name goes again."""
        source = f"{self._engine_registry}/{reference.repository}@{manifest.digest}"
        try:
            async with self._engine.pull(source) as lines:
                async for _ in lines:
                    pass
            pulled = await self._engine.inspect(source)
            if pulled is not None:
                await self._engine.tag(pulled.local_id, str(reference))
        finally:
            await self._engine.untag(source)

    async def _load(self, reference: Reference, manifest: Manifest) -> None:
        """As an archive: a containerd store that still has the unpacked layers (28.5, of a build) pulls nothing of an
        image whose content it removed, and then cannot use it."""
        archive = image_archive(self._registry, reference.repository, manifest, str(reference))
        async with aclosing(archive), self._engine.load(archive) as lines:
            async for _ in lines:
                pass

    async def _drop_own_names(self, image: EngineImage) -> None:
        """Names by digest under the registry's address are ours: a fetch that was killed leaves one, and an image that
        has one would never be freed."""
        for name in image.repo_digests:
            if name.startswith(f"{self._engine_registry}/"):
                await self._engine.untag(name)

    async def _read_back(self, reference: Reference, image: EngineImage) -> bool:
        """Whether the registry gives every byte of this image. Raises WrongContent for bytes that are others."""
        try:
            pushed = await self._push.verified(reference, image)
        except BadReference:
            return False
        if pushed is None:
            return False
        for digest in dict.fromkeys([pushed.image_id, *(layer.digest for layer in pushed.layers)]):
            async with self._registry.open_blob(pushed.repository, digest) as chunks:
                async for _ in chunks:  # the registry's client hashes what it reads
                    pass
        return True
