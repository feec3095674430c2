"""The read model: what the registry holds and what each range has, as records that anybody may read.

    {prefix}:image:<reference>          RegistryEntry
    {prefix}:image-layers:<reference>   ImageLayers
    {prefix}:image-use:<reference>      ImageUse
    {prefix}:holdings:<range_id>        RangeInventory
    {prefix}:index:images               references in the registry, by the time of their last push
    {prefix}:index:image-changes        references that were written or deleted, by the time of that
    {prefix}:index:holders:<image_id>   range ids that have this content, by the time they were heard to

Written by the tracker from the messages it consumes; deployments themselves are the deployer's records.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from events.bus import IndexWrite, Outcome
from events.messages import ImageOutcome, ImagePushed, PresentImage
from events.records import ANY, Expected, Key, Stored
from services.core.images.image import EngineImage
from services.core.images.registry_scan import layers_hash


@dataclass(frozen=True, slots=True)
class ReadModelKeys:
    """Names under a key prefix."""

    prefix: str

    def image(self, reference: str) -> Key[RegistryEntry]:
        return Key(f"{self.prefix}:image:{reference}", RegistryEntry)

    def layers(self, reference: str) -> Key[ImageLayers]:
        return Key(f"{self.prefix}:image-layers:{reference}", ImageLayers)

    def use(self, reference: str) -> Key[ImageUse]:
        return Key(f"{self.prefix}:image-use:{reference}", ImageUse)

    def holdings(self, range_id: str) -> Key[RangeInventory]:
        return Key(f"{self.prefix}:holdings:{range_id}", RangeInventory)

    def holders(self, image_id: str) -> str:
        return f"{self.prefix}:index:holders:{image_id}"

    @property
    def images(self) -> str:
        return f"{self.prefix}:index:images"

    @property
    def image_changes(self) -> str:
        return f"{self.prefix}:index:image-changes"


def present(images: Iterable[EngineImage]) -> tuple[PresentImage, ...]:
    """An engine's images as an agent reports them, in one order, so that two equal inspections compare equal."""
    return tuple(
        PresentImage(
            references=image.references,
            diff_ids=image.diff_ids,
            image_id=image.image_id,
            local_id=image.local_id if image.local_id != image.image_id else None,
            size_bytes=image.size_bytes,
        )
        for image in sorted(images, key=lambda image: image.local_id)
    )


class RegistryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image in the registry. `size_bytes` is the sum of its layers as stored, shared ones included.

    kind     `other`: a tag that names no image of one platform (an index, or what some other program left there)
    problem  what is damaged, as a scan of the registry found it
    foreign  a scan found it: no push of ours was heard of, and `pushed_at` is when it was found
    """

    reference: str
    repository: str
    tag: str
    manifest_digest: str
    image_id: str
    layers: int
    size_bytes: int
    pushed_at: datetime
    actor: str = ""
    """Who asked for the push, where that is known."""
    source: str = ""
    """Which program asked."""
    kind: Literal["image", "other"] = "image"
    problem: str = ""
    foreign: bool = False
    layers_hash: str = ""
    """Of the diff IDs (`registry_scan.layers_hash`), for engines that cannot tell the image id."""

    @classmethod
    def said(cls, message: ImagePushed, at: datetime) -> RegistryEntry:
        return cls(
            reference=message.reference,
            repository=message.repository,
            tag=message.tag,
            manifest_digest=message.manifest_digest,
            image_id=message.image_id,
            layers=len(message.layers),
            size_bytes=sum(layer.size_bytes for layer in message.layers),
            pushed_at=at,
            actor=message.actor,
            source=message.source,
            layers_hash=layers_hash([layer.diff_id for layer in message.layers]),
        )


class ImageLayers(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The layers of an image in the registry, base first: digest and size in bytes of each, as stored."""

    reference: str
    manifest_digest: str
    layers: tuple[tuple[str, int], ...] = ()

    @classmethod
    def said(cls, message: ImagePushed) -> ImageLayers:
        layers = tuple((layer.digest, layer.size_bytes) for layer in message.layers)
        return cls(reference=message.reference, manifest_digest=message.manifest_digest, layers=layers)


class ImageUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a deployment last brought an image to a range, or found it there."""

    reference: str
    deployed_at: datetime


class RangeInventory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a range has, by reference: the image id, or None where its engine cannot tell; and when it was reported.

    since       when content arrived under a reference after `listed_at`, by the range's clock
    sizes       bytes by reference, as far as they were said
    local_ids   what the engine calls it, by reference, where it cannot tell the image id
    unnamed     images without a name
    listed_at   when its agent last said all that is there, by the range's clock
    """

    range_id: str
    images: dict[str, str | None] = {}
    since: dict[str, datetime] = {}
    heard_at: datetime | None = None
    sizes: dict[str, int] = {}
    local_ids: dict[str, str] = {}
    unnamed: tuple[PresentImage, ...] = ()
    listed_at: datetime | None = None

    @classmethod
    def announced(cls, range_id: str, images: Iterable[PresentImage], at: datetime | None = None) -> RangeInventory:
        """The inventory that an agent reported: it replaces what was known before."""
        found = tuple(images)
        named = [(reference, image) for image in found for reference in image.references]
        return cls(
            range_id=range_id,
            images={reference: image.image_id for reference, image in named},
            sizes={reference: image.size_bytes for reference, image in named if image.size_bytes},
            local_ids={reference: image.local_id for reference, image in named if image.local_id},
            unnamed=tuple(image for image in found if not image.references),
            listed_at=at,
        )

    def with_arrivals(self, outcomes: Iterable[ImageOutcome], ended_at: datetime) -> RangeInventory:
        """The inventory after a deployment ended: images that arrived are added, unless other content came later."""
        arrived = {
            one.reference: (one.image_id, one.ready_at or ended_at)
            for one in outcomes
            if one.how is not None and self._is_news(one.reference, one.ready_at or ended_at)
        }
        moved = {name for name, (image_id, _at) in arrived.items() if image_id != self.images.get(name)}
        return msgspec.structs.replace(
            self,
            images={**self.images, **{name: image_id for name, (image_id, _at) in arrived.items()}},
            since={**self.since, **{name: at for name, (_image_id, at) in arrived.items()}},
            sizes={name: size for name, size in self.sizes.items() if name not in moved},
            local_ids={name: local_id for name, local_id in self.local_ids.items() if name not in moved},
        )

    def _is_news(self, reference: str, ready_at: datetime) -> bool:
        known = [at for at in (self.since.get(reference), self.listed_at) if at is not None]
        return not known or ready_at >= max(known)

    def content(self, reference: str) -> str | None:
        """An identity by which two names of one content can be matched; None where it is not known."""
        return self.images[reference] or self.local_ids.get(reference)

    @property
    def is_report(self) -> bool:
        """Whether anything of the range was reported: the end of a deployment that brought nothing is no report."""
        return self.listed_at is not None or bool(self.images)

    @property
    def image_ids(self) -> frozenset[str]:
        return frozenset(image_id for image_id in self.images.values() if image_id is not None)


def deleted(
    keys: ReadModelKeys, reference: str, now: datetime, *, expected: Stored[RegistryEntry] | Expected = ANY
) -> Outcome:
    """The writes that take an image off the registry's list, if its record is still what is `expected`."""
    return Outcome(
        records=(
            keys.image(reference).delete(expected=expected),
            keys.layers(reference).delete(expected=ANY),
            keys.use(reference).delete(expected=ANY),
        ),
        index=(
            IndexWrite(keys.images, reference, None),
            IndexWrite(keys.image_changes, reference, now.timestamp()),
        ),
    )
