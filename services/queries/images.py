"""Images on the host's engine and in the registry, and the open prompts."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec

from events.bus import BusClient
from events.records import load_values
from events.streams import Streams
from services.content.registry_config import registry_config
from services.core.images.image import EngineImage
from services.core.images.manifests import Manifest
from services.core.images.prompts import Prompt, prompt_index, prompt_key
from services.core.images.references import Reference
from services.errors import BadInput, BadReference, CyroidError, RegistryUnavailable, WrongContent
from services.ports import Engine, Registry

_AT_ONCE = 16


class HostImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image of the host's engine under one of its names.

    `registry`: same, other (that name has other content there), no, away, or unknown; `-` stands where nothing can be
    there, for an image without a name.
    """

    reference: str
    image_id: str | None
    local_id: str
    size_bytes: int
    platform: str
    registry: str


class RegistryImage(msgspec.Struct, frozen=True, kw_only=True):
    """A tag in the registry. Sizes are of the blobs as stored.

    `kind` is `image`, or `other` for a tag that names no image of one platform (an index, or what some other program
    left there); of such a one only the name is known.
    """

    reference: str | None
    repository: str
    tag: str
    kind: Literal["image", "other"] = "other"
    manifest_digest: str | None = None
    image_id: str | None = None
    layers: int | None = None
    size_bytes: int | None = None


async def host_images(engine: Engine, registry: Registry) -> list[HostImage]:
    """One row per name."""
    rows = [(name, image) for image in await engine.images() for name in image.references or ("<none>",)]
    slots = asyncio.Semaphore(_AT_ONCE)

    async def row(name: str, image: EngineImage) -> HostImage:
        async with slots:
            state = await _state(name, image, registry)
        return HostImage(
            reference=name,
            image_id=image.image_id,
            local_id=image.local_id,
            size_bytes=image.size_bytes,
            platform=image.platform,
            registry=state,
        )

    return list(await asyncio.gather(*(row(name, image) for name, image in sorted(rows, key=lambda one: one[0]))))


async def _state(name: str, image: EngineImage, registry: Registry) -> str:
    try:
        reference = Reference.parse(name)
        found = await registry.manifest(reference.repository, reference.registry_tag)
        if found is None:
            return "no"
        return "same" if await _same(image, reference.repository, found[1], registry) else "other"
    except BadReference:
        return "-"
    except BadInput:
        return "other"  # an index, or what some other program left there
    except RegistryUnavailable:
        return "away"
    except CyroidError:
        return "unknown"


async def _same(image: EngineImage, repository: str, manifest: Manifest, registry: Registry) -> bool:
    """An engine on a containerd store does not tell the config digest, so there the config's diff IDs are compared."""
    image_id = manifest.body.config.digest
    if image.image_id is not None:
        return image.image_id == image_id
    config = await registry_config(registry, repository, manifest)
    return image.is_content(image_id, config.rootfs.diff_ids)


async def registry_images(registry: Registry) -> list[RegistryImage]:
    """One row per tag in the registry, by repository and tag."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def rows(repository: str) -> list[RegistryImage]:
        async with slots:
            tags = await registry.tags(repository)
        return [row for row in await asyncio.gather(*(one(repository, tag) for tag in sorted(tags))) if row]

    async def one(repository: str, tag: str) -> RegistryImage | None:
        reference = Reference.from_registry(repository, tag)
        row = RegistryImage(reference=str(reference) if reference else None, repository=repository, tag=tag)
        try:
            async with slots:
                found = await registry.manifest(repository, tag)
        except (BadInput, WrongContent):
            return row
        if found is None:  # deleted between the listing and now
            return None
        descriptor, manifest = found
        return msgspec.structs.replace(
            row,
            kind="image",
            manifest_digest=descriptor.digest,
            image_id=manifest.body.config.digest,
            layers=len(manifest.body.layers),
            size_bytes=manifest.body.config.size + sum(layer.size for layer in manifest.body.layers),
        )

    repositories = [repository async for repository in registry.repositories()]
    return [row for found in await asyncio.gather(*(rows(name) for name in sorted(repositories))) for row in found]


async def open_prompts(bus: BusClient, streams: Streams) -> list[Prompt]:
    """Open prompts: images that came with `push: ask`, the oldest first."""
    ids = await bus.members(prompt_index(streams.prefix))
    return await load_values(bus, [prompt_key(streams.prefix, id_) for id_ in ids])
