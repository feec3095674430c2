"""Adoption: images that are there already, on the host's engine or in the registry, and that no event told of.

    host's engine   listed by pattern; what the registry lacks is asked for as pushes, which are durable commands
    registry        tags that the read model lacks are announced; those under upstream's own names (`nginx`, which is
                    `library/nginx` here) are mounted under ours, byte for byte and without moving a byte

Nothing is overwritten: a name that has other content in the registry keeps it. What is there is left alone, so the same
command again goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from events.bus import BusClient
from events.messages import Adoption, ImagePushed
from events.records import load_all
from services.content.registry_config import registry_config
from services.content.registry_image import layers_of
from services.core.images.image import EngineImage
from services.core.images.manifests import Descriptor, Manifest
from services.core.images.read_model import ReadModelKeys
from services.core.images.reclaim_rules import fits
from services.core.images.references import Reference
from services.errors import BadInput, BadReference, TransferFailed
from services.ports import Engine, LayerSource, Registry
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class FoundTag:
    """An image of the registry. `own`: it lies where our name of it does."""

    reference: Reference
    repository: str
    tag: str
    manifest: Manifest

    @property
    def own(self) -> bool:
        return self.reference.repository == self.repository


class HostAdoption:
    """The host's half."""

    def __init__(
        self,
        *,
        engine: Engine,
        registry: Registry,
        push: ImagePush,
        sources: Sequence[LayerSource],
        encodings: LayerEncodings,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._push = push
        self._sources = sources
        self._encodings = encodings

    async def found(self, patterns: Sequence[str]) -> list[Adoption]:
        """Every name that the patterns fit, in order. A layer that several lack counts for the first alone."""
        named = [
            (reference, image)
            for image in await self._engine.images()
            for reference in map(Reference.parse, image.references)
            if fits(reference, patterns)
        ]
        counted: set[str] = set()
        return [
            await self._look(reference, image, counted)
            for reference, image in sorted(named, key=lambda one: str(one[0]))
        ]

    async def _look(self, reference: Reference, image: EngineImage, counted: set[str]) -> Adoption:
        found = Adoption(reference=str(reference), origin="host", state="present", size_bytes=image.size_bytes)
        try:
            if await self._push.verified(reference, image) is not None:
                return found
            there = await self._registry.manifest(reference.repository, reference.registry_tag)
        except BadReference as problem:
            return _changed(found, "unusable", str(problem))
        except (BadInput, TransferFailed):
            return _changed(found, "other", "the registry has something else under this name, or it is damaged")
        if there is not None and not image.is_content(there[1].body.config.digest, ()):
            return _changed(found, "other", "`images push` replaces it")
        missing = await self._missing_bytes(reference, image, counted)
        return Adoption(
            reference=str(reference), origin="host", state="new", size_bytes=image.size_bytes, missing_bytes=missing
        )

    async def _missing_bytes(self, reference: Reference, image: EngineImage, counted: set[str]) -> int:
        """Of layers that the registry has nowhere known; where no source tells sizes, the whole image counts."""
        lacking = [one for one in dict.fromkeys(image.diff_ids) if one not in counted]
        known = await self._encodings.known(lacking)
        total = 0
        for diff_id in lacking:
            form = known.get(diff_id)
            digest = (form.digest if form is not None else None) or diff_id
            places = [reference.repository, *await self._encodings.places(diff_id, but=reference.repository)]
            sizes = [await self._registry.blob_size(place, digest) for place in places]
            if any(size is not None for size in sizes):
                continue
            counted.add(diff_id)
            size = await self._size(image, diff_id)
            if size is None:
                return image.size_bytes
            total += size
        return total

    async def _size(self, image: EngineImage, diff_id: str) -> int | None:
        for source in self._sources:
            try:
                size = await source.size(image, diff_id)
            except TransferFailed:
                continue
            if size is not None:
                return size
        return None


class RegistryAdoption:
    """The registry's half."""

    def __init__(self, *, registry: Registry, bus: BusClient, prefix: str) -> None:
        self._registry = registry
        self._bus = bus
        self._keys = ReadModelKeys(prefix)

    async def found(self, patterns: Sequence[str]) -> list[tuple[Adoption, FoundTag | None]]:
        """Every tag whose name the patterns fit, in order; with what `adopt` takes where it is new."""
        named = [place async for place in self._named(patterns)]
        entries = await load_all(self._bus, [self._keys.image(str(reference)) for reference, _, _ in named])
        slots = asyncio.Semaphore(_AT_ONCE)

        async def look(place: tuple[Reference, str, str], known: str | None) -> tuple[Adoption, FoundTag | None]:
            async with slots:
                return await self._look(*place, known)

        digests = (entry.value.manifest_digest if entry.value is not None else None for entry in entries)
        return list(await asyncio.gather(*(look(*one) for one in zip(named, digests, strict=True))))

    async def adopt(self, found: FoundTag) -> ImagePushed:
        """Put it under our name, if it is not there, and tell what it is. Raises TransferFailed, BadInput."""
        target, manifest = found.reference, found.manifest
        if not found.own:
            for blob in {one.digest: one for one in _blobs(manifest)}.values():
                await self._bring(blob, found.repository, target.repository)
            await self._registry.put_manifest(target.repository, target.registry_tag, manifest)
        config = await registry_config(self._registry, target.repository, manifest)
        layers = layers_of(manifest, config)
        return ImagePushed(
            reference=str(target),
            repository=target.repository,
            tag=target.registry_tag,
            manifest_digest=manifest.digest,
            image_id=manifest.body.config.digest,
            layers=layers,
            reused_bytes=sum(layer.size_bytes for layer in set(layers)),
            method="present",
        )

    async def _named(self, patterns: Sequence[str]) -> AsyncIterator[tuple[Reference, str, str]]:
        async for repository in self._registry.repositories():
            for tag in sorted(await self._registry.tags(repository)):
                reference = Reference.from_registry(repository, tag) or _upstream(repository, tag)
                if reference is not None and fits(reference, patterns):
                    yield reference, repository, tag

    async def _look(
        self, reference: Reference, repository: str, tag: str, known: str | None
    ) -> tuple[Adoption, FoundTag | None]:
        found_as = f"{repository}:{tag}"
        said = Adoption(reference=str(reference), origin="registry", state="present", found_as=found_as)
        try:
            there = await self._registry.manifest(repository, tag)
            ours = await self._registry.manifest(reference.repository, reference.registry_tag)
        except (BadInput, TransferFailed) as problem:
            return _changed(said, "unusable", str(problem)[:200]), None
        if there is None:
            return _changed(said, "unusable", "it was deleted meanwhile"), None
        manifest = there[1]
        if ours is not None and ours[1].digest != manifest.digest:
            return _changed(said, "other", f"{reference.repository}:{reference.registry_tag} is another image"), None
        size = sum({blob.digest: blob.size for blob in _blobs(manifest)}.values())
        said = Adoption(
            reference=str(reference),
            origin="registry",
            state="present" if ours is not None and known == manifest.digest else "new",
            found_as=found_as,
            size_bytes=size,
        )
        return said, FoundTag(reference, repository, tag, manifest) if said.state == "new" else None

    async def _bring(self, blob: Descriptor, source: str, target: str) -> None:
        if await self._registry.blob_size(target, blob.digest) is not None:
            return
        if await self._registry.mount_blob(target, blob.digest, source):
            return
        async with self._registry.open_blob(source, blob.digest) as chunks:
            await self._registry.put_blob(target, blob.digest, blob.size, chunks)


def summed(found: Iterable[Adoption]) -> tuple[int, int]:
    """Bytes of what is new, and those of them that have to be sent."""
    new = [one for one in found if one.state == "new"]
    return sum(one.size_bytes for one in new), sum(one.missing_bytes for one in new)


def _upstream(repository: str, tag: str) -> Reference | None:
    """The name that upstream's own registry has this repository under: `nginx` is `docker.io/library/nginx`."""
    try:
        return Reference.parse(f"{repository}:{tag}")
    except BadReference:
        return None


def _blobs(manifest: Manifest) -> tuple[Descriptor, ...]:
    return (manifest.body.config, *manifest.body.layers)


def _changed(found: Adoption, state: Literal["other", "unusable"], note: str) -> Adoption:
    return msgspec.structs.replace(found, state=state, size_bytes=0, note=note)
