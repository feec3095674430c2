"""What there is: images on the host's engine and in the registry, open prompts, ranges."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from events.bus import Speaker
from events.streams import Streams
from services.core.images import EngineImage
from services.core.manifests import Manifest
from services.core.prompts import Prompt, prompt_index, prompt_key
from services.core.ranges import RangeKeys
from services.core.references import Reference
from services.errors import BadInput, BadReference, CyroidError, RegistryUnavailable, WrongContent
from services.ports import Engine, Registry
from services.registry_config import registry_config

_AT_ONCE = 16


async def host_images(engine: Engine, registry: Registry) -> list[dict[str, Any]]:
    """One row per name. `registry`: same, other (that name has other content there), no, away, or unknown.

    `-` stands where nothing can be there, for an image without a name.
    """
    rows = [(name, image) for image in await engine.images() for name in image.references or ("<none>",)]
    slots = asyncio.Semaphore(_AT_ONCE)

    async def row(name: str, image: EngineImage) -> dict[str, Any]:
        async with slots:
            state = await _state(name, image, registry)
        return {
            "reference": name,
            "image_id": image.image_id,
            "local_id": image.local_id,
            "size_bytes": image.size_bytes,
            "platform": image.platform,
            "registry": state,
        }

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


async def registry_images(registry: Registry) -> list[dict[str, Any]]:
    """One row per tag in the registry. Sizes are of the blobs as stored.

    `kind` is `image`, or `other` for a tag that names no image of one platform (an index, or what some other program
    left there); of such a one only the name is known.
    """
    slots = asyncio.Semaphore(_AT_ONCE)

    async def rows(repository: str) -> list[dict[str, Any]]:
        async with slots:
            tags = await registry.tags(repository)
        return [row for row in await asyncio.gather(*(one(repository, tag) for tag in sorted(tags))) if row]

    async def one(repository: str, tag: str) -> dict[str, Any] | None:
        reference = Reference.from_registry(repository, tag)
        row: dict[str, Any] = {
            "reference": str(reference) if reference else None,
            "repository": repository,
            "tag": tag,
            "kind": "other",
            "manifest_digest": None,
            "image_id": None,
            "layers": None,
            "size_bytes": None,
        }
        try:
            async with slots:
                found = await registry.manifest(repository, tag)
        except (BadInput, WrongContent):
            return row
        if found is None:  # deleted between the listing and now
            return None
        descriptor, manifest = found
        return row | {
            "kind": "image",
            "manifest_digest": descriptor.digest,
            "image_id": manifest.body.config.digest,
            "layers": len(manifest.body.layers),
            "size_bytes": manifest.body.config.size + sum(layer.size for layer in manifest.body.layers),
        }

    repositories = [repository async for repository in registry.repositories()]
    return [row for found in await asyncio.gather(*(rows(name) for name in sorted(repositories))) for row in found]


async def open_prompts(speaker: Speaker, streams: Streams) -> list[Prompt]:
    """Images that came with `push: ask` and wait for an answer, the oldest question first."""
    ids = await speaker.members(prompt_index(streams.prefix))
    records = await speaker.load_many([prompt_key(streams.prefix, id_) for id_ in ids]) if ids else []
    return [msgspec.json.decode(record.value, type=Prompt) for record in records if record is not None]


async def known_ranges(speaker: Speaker, streams: Streams) -> list[dict[str, Any]]:
    """Every range that ever spoke: whether its agent's heart beats, and what it last said of itself.

    One that something was asked for, and that never spoke, may be a mistyped name: it is none.
    """
    announced = set(await speaker.members(RangeKeys(streams.prefix).known_index))
    outboxes = await speaker.discover(streams.outbox_pattern)
    names = sorted(announced | {name for outbox in outboxes if (name := streams.range_of(outbox)) is not None})
    beats = await speaker.beats([streams.alive(name) for name in names]) if names else []
    alive = {name for name, beat in zip(names, beats, strict=True) if beat is not None}
    doubtful = [name for name in names if name not in announced | alive]
    spoke = announced | alive | await _spoke(speaker, streams, doubtful)
    return [_range(name, beat) for name, beat in zip(names, beats, strict=True) if name in spoke]


async def _spoke(speaker: Speaker, streams: Streams, names: Sequence[str]) -> set[str]:
    """Those whose outbox is more than a stream that somebody listens to."""
    outboxes = [streams.outbox(name) for name in names]
    said = {entry.stream async for entry in speaker.tail(outboxes, after="0", follow=False)} if outboxes else set[str]()
    return {name for name in names if streams.outbox(name) in said}


Short = Annotated[str, msgspec.Meta(max_length=128)]


class _Beat(msgspec.Struct):
    engine_id: Short = ""
    incarnation: Short = ""
    engine_version: Short = ""
    at: Short = ""


def _range(name: str, beat: bytes | None) -> dict[str, Any]:
    """A range writes its beat itself, so it may hold anything."""
    row: dict[str, Any] = {"range_id": name, "agent": "away" if beat is None else "alive"}
    if beat is not None:
        try:
            row |= msgspec.structs.asdict(msgspec.json.decode(beat, type=_Beat))
        except (msgspec.DecodeError, UnicodeDecodeError):
            row["agent"] = "unreadable"
    return row
