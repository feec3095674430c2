"""The read model: what the registry holds and what each range has, as records that anybody may read.

    {prefix}:image:<reference>          RegistryEntry
    {prefix}:holdings:<range_id>        Holdings
    {prefix}:index:images               references in the registry, by the time of their last push
    {prefix}:index:holders:<image_id>   range ids that have this content, by the time they were heard to

Made by the tracker from what was said; deployments themselves are the deployer's records.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from events.messages import ImageOutcome, ImagePushed, PresentImage
from services.core.images import EngineImage


@dataclass(frozen=True, slots=True)
class HoldingKeys:
    """Names under a key prefix."""

    prefix: str

    def image(self, reference: str) -> str:
        return f"{self.prefix}:image:{reference}"

    def holdings(self, range_id: str) -> str:
        return f"{self.prefix}:holdings:{range_id}"

    def holders(self, image_id: str) -> str:
        return f"{self.prefix}:index:holders:{image_id}"

    @property
    def images(self) -> str:
        return f"{self.prefix}:index:images"


def present(images: Iterable[EngineImage]) -> tuple[PresentImage, ...]:
    """An engine's images as an agent tells them: in one order, so that two looks at the same ones are equal."""
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
    """An image in the registry. `size_bytes` is the sum of its layers as stored, shared ones included."""

    reference: str
    repository: str
    tag: str
    manifest_digest: str
    image_id: str
    layers: int
    size_bytes: int
    pushed_at: datetime

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
        )


class Holdings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a range has, by reference: the image id, or None where its engine cannot tell; and when it was heard.

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
    def announced(cls, range_id: str, images: Iterable[PresentImage], at: datetime | None = None) -> Holdings:
        """What an agent found there: all there is, whatever was known before."""
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

    def with_arrivals(self, outcomes: Iterable[ImageOutcome], ended_at: datetime) -> Holdings:
        """After a deployment ended, in whatever way: what arrived, arrived, unless other content came later."""
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
        """By what two names of one content are known to be that; None where nothing was said."""
        return self.images[reference] or self.local_ids.get(reference)

    @property
    def image_ids(self) -> frozenset[str]:
        return frozenset(image_id for image_id in self.images.values() if image_id is not None)
