"""Unreferenced images: on the engines of ranges and in the registry, but in no desired state and no plan.

    {prefix}:unwanted     UnreferencedSummary, written by the deployers' reconciler about once a minute

Referenced is what a deployment that succeeded brought (`services.core.ranges.ranges`), until it is forgotten, and what
an open one is about. A name that is wanted and means other content is not told here: `services.core.ranges.drift` tells
it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import msgspec

from events.messages import PresentImage
from events.records import Key
from services.core.images.read_model import RangeInventory, RegistryEntry
from services.core.ranges.ranges import DesiredImages

Wants = Mapping[str, str | None]
"""Reference → image id (None while it is not known) of what open deployments are about."""


class UnreferencedImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image of a range. Without `references` it is what a name that moved on left behind.

    local_id     what the engine calls it, where that is not the image id
    size_bytes   None where nobody said; layers that other images share are counted too
    shared       the same content is there under a wanted name: taking this name away frees nothing
    """

    references: tuple[str, ...]
    image_id: str | None
    local_id: str | None = None
    size_bytes: int | None = None
    shared: bool = False


class UnreferencedSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Over all ranges: how many images are unreferenced, in how many ranges, and when that was counted."""

    images: int
    ranges: int
    at: datetime


def summary_key(prefix: str) -> Key[UnreferencedSummary]:
    """Where the summary is."""
    return Key(f"{prefix}:unwanted", UnreferencedSummary)


def unwanted(held: RangeInventory, wanted: DesiredImages, under_way: Wants) -> tuple[UnreferencedImage, ...]:
    """Images that a range has and should not have; those with names first, by name."""
    ids = {image.image_id for image in wanted.images.values()} | {one for one in under_way.values() if one}
    layers = {image.diff_ids for image in wanted.images.values() if image.diff_ids}
    meant = {held.content(name) for name in held.images if name in wanted.images or name in under_way} - {None}
    together: dict[str, list[str]] = {}
    for name in sorted(held.images):
        if name not in wanted.images and name not in under_way:
            together.setdefault(held.content(name) or name, []).append(name)
    named = [
        UnreferencedImage(
            references=tuple(names),
            image_id=held.images[names[0]],
            local_id=held.local_ids.get(names[0]),
            size_bytes=max((held.sizes.get(name, 0) for name in names), default=0) or None,
            shared=content in ids | meant,
        )
        for content, names in together.items()
    ]
    nameless = [one for one in held.unnamed if not _is_wanted(one, ids, layers)]
    return (*named, *map(_left_behind, nameless))


def _is_wanted(image: PresentImage, ids: Collection[str], layers: Collection[tuple[str, ...]]) -> bool:
    """Whether the image is referenced. An image that was pulled a moment ago gets its name later."""
    return image.image_id in ids if image.image_id is not None else image.diff_ids in layers


def _left_behind(image: PresentImage) -> UnreferencedImage:
    return UnreferencedImage(
        references=(), image_id=image.image_id, local_id=image.local_id, size_bytes=image.size_bytes or None
    )


def unwanted_in_registry(
    entries: Iterable[RegistryEntry], names: Collection[str], ids: Collection[str]
) -> tuple[RegistryEntry, ...]:
    """Images in the registry that are neither one of `names` (desired, planned, held) nor content of one of `ids`."""
    return tuple(entry for entry in entries if entry.reference not in names and entry.image_id not in ids)
