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

    `since` says when content arrived under a reference, or when an agent found it there.
    """

    range_id: str
    images: dict[str, str | None] = {}
    since: dict[str, datetime] = {}
    heard_at: datetime | None = None

    @classmethod
    def announced(cls, range_id: str, images: Iterable[PresentImage], at: datetime) -> Holdings:
        """What an agent found when it came up: all there is, whatever was known before."""
        named = {reference: image.image_id for image in images for reference in image.references}
        return cls(range_id=range_id, images=named, since=dict.fromkeys(named, at))

    def with_arrivals(self, outcomes: Iterable[ImageOutcome], ended_at: datetime) -> Holdings:
        """After a deployment ended, in whatever way: what arrived, arrived, unless other content came later."""
        images, since = dict(self.images), dict(self.since)
        for one in outcomes:
            ready_at = one.ready_at or ended_at
            if one.how is not None and (one.reference not in since or since[one.reference] <= ready_at):
                images[one.reference], since[one.reference] = one.image_id, ready_at
        return Holdings(range_id=self.range_id, images=images, since=since)

    @property
    def image_ids(self) -> frozenset[str]:
        return frozenset(image_id for image_id in self.images.values() if image_id is not None)
