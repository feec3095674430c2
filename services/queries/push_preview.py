"""A dry run of a push: how many layers the registry lacks, and about how much would be sent."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec

from events.bus import BusClient
from events.records import load_all
from events.streams import Streams
from services.core.hosts.held_images import HeldImage, HeldKeys
from services.core.images.encodings import RAW, LayerEncoding, encoding_key, places_key
from services.core.images.image import EngineImage
from services.core.images.references import Reference
from services.errors import BadInput, NotFound
from services.ports import Engine, Registry

_AT_ONCE = 16
_PLACES = 3


class PushPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a push would do now.

    host           another host, which holds the image; None: this one has it
    tag            what the registry has under the name: the same content, other content, or nothing
    missing_bytes  about what would be sent: the image's size without the layers that are there
    """

    reference: str
    image_id: str | None
    tag: Literal["same", "other", "none"]
    layers: int
    missing_layers: int
    missing_bytes: int
    host: str | None = None


async def push_preview(
    text: str, *, engine: Engine, registry: Registry, bus: BusClient, streams: Streams
) -> PushPreview:
    """Compare what a host's engine has under a name with the registry. Raises NotFound, BadReference, Unavailable.

    What this host's engine lacks is compared as the records have it of the host that holds it.
    """
    reference = Reference.parse(text)
    image, host = await _found(reference, engine, bus, streams)
    diff_ids = list(dict.fromkeys(image.diff_ids))
    stored = await load_all(bus, [encoding_key(streams.prefix, diff_id) for diff_id in diff_ids])
    slots = asyncio.Semaphore(_AT_ONCE)

    async def there(diff_id: str, form: LayerEncoding) -> int | None:
        """The size of the layer's blob, in the image's own repository or where it was seen lately."""
        blob = form.blob(diff_id)
        if blob is None:
            return None
        async with slots:
            seen = await bus.members(places_key(streams.prefix, diff_id))
            for repository in dict.fromkeys([reference.repository, *reversed(seen[-_PLACES:])]):
                size = await registry.blob_size(repository, blob)
                if size is not None:
                    return size
        return None

    forms = [found.value or RAW for found in stored]
    sizes = await asyncio.gather(*(there(diff_id, form) for diff_id, form in zip(diff_ids, forms, strict=True)))
    missing = sum(size is None for size in sizes)
    known = sum(size for size in sizes if size is not None)
    return PushPreview(
        reference=str(reference),
        image_id=image.image_id,
        tag=await _tag(reference, image.image_id, registry),
        layers=len(diff_ids),
        missing_layers=missing,
        missing_bytes=max(0, image.size_bytes - known) if missing else 0,
        host=host,
    )


async def _found(
    reference: Reference, engine: Engine, bus: BusClient, streams: Streams
) -> tuple[EngineImage | HeldImage, str | None]:
    """The image, and the other host that holds it."""
    image = await engine.inspect(str(reference))
    if image is not None:
        return image, None
    held = (await HeldKeys(streams.prefix).images(str(reference)).load(bus)).value
    if held is None or not held.hosts:
        raise NotFound(
            f"the host's engine has no image {reference.familiar}, and no other host is known to hold one",
            hint="cyroid-images images ls",
        )
    host = held.holders()[0]
    return held.hosts[host], host


async def _tag(reference: Reference, image_id: str | None, registry: Registry) -> Literal["same", "other", "none"]:
    try:
        found = await registry.manifest(reference.repository, reference.registry_tag)
    except BadInput:
        return "other"  # an index, or what some other program left there
    if found is None:
        return "none"
    return "same" if found[1].body.config.digest == image_id else "other"
