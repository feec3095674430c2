"""Held images: which hosts have an image on their engine, by its name.

    {prefix}:held:<reference>       HeldImages
    {prefix}:index:held:<host>      references that this host's engine has, by the time they were noted

Written by whoever announces an image, and by each host's registry-pusher, which compares them with its engine. Under
one name hosts may hold different content; the name means the content that came last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from events.bus import IndexWrite, Outcome
from events.records import Key, Stored
from services.core.images.image import EngineImage

#: When an image was announced that was only found.
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HeldKeys:
    """Names under a key prefix."""

    prefix: str

    def images(self, reference: str) -> Key[HeldImages]:
        return Key(f"{self.prefix}:held:{reference}", HeldImages)

    def of_host(self, host: str) -> str:
        return f"{self.prefix}:index:held:{host}"

    def written(self, stored: Stored[HeldImages], after: HeldImages, host: str, at: datetime) -> Outcome:
        """The writes of a record that is as `after` for this host's sake, if it is still what was read."""
        key = self.images(after.reference)
        record = key.write(after, expected=stored) if after.hosts else key.delete(expected=stored)
        score = at.timestamp() if host in after.hosts else None
        return Outcome(records=(record,), index=(IndexWrite(self.of_host(host), after.reference, score),))


class HeldImage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one host's engine has under a name, and when it was announced. `image_id` None: that engine cannot tell."""

    local_id: str
    image_id: str | None
    diff_ids: tuple[str, ...]
    since: datetime
    size_bytes: int = 0
    platform: str = ""

    @classmethod
    def of(cls, image: EngineImage, *, since: datetime = NEVER, image_id: str | None = None) -> HeldImage:
        """`image_id` where somebody else knows it."""
        return cls(
            local_id=image.local_id,
            image_id=image.image_id or image_id,
            diff_ids=image.diff_ids,
            since=since,
            size_bytes=image.size_bytes,
            platform=image.platform,
        )

    def is_content(self, image_id: str, diff_ids: tuple[str, ...]) -> bool:
        """Whether this is that content; diff IDs decide only where the config digest is not known."""
        if self.image_id is not None:
            return self.image_id == image_id
        return bool(diff_ids) and self.diff_ids == diff_ids


class HeldImages(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All hosts that hold an image under `reference`, by their ids."""

    reference: str
    hosts: dict[str, HeldImage] = {}

    def announced(self, host: str, image: HeldImage) -> HeldImages:
        """With an image that this host announced: the name means it from now on."""
        return HeldImages(reference=self.reference, hosts={**self.hosts, host: image})

    def found(self, host: str, image: HeldImage) -> HeldImages:
        """With an image that was found on this host's engine: nobody announced it, so it outranks no other host's.

        Of what was known before, its time stays, and the image id where the engine cannot tell.
        """
        before = self.hosts.get(host)
        since = before.since if before is not None else NEVER
        known = before.image_id if before is not None and before.local_id == image.local_id else None
        image = msgspec.structs.replace(image, since=since, image_id=image.image_id or known)
        return HeldImages(reference=self.reference, hosts={**self.hosts, host: image})

    def dropped(self, host: str) -> HeldImages:
        """Without this host."""
        return HeldImages(
            reference=self.reference, hosts={one: held for one, held in self.hosts.items() if one != host}
        )

    @property
    def latest(self) -> datetime:
        """When one of them was announced last."""
        return max((held.since for held in self.hosts.values()), default=NEVER)

    def holders(self, image_id: str | None = None, diff_ids: tuple[str, ...] = ()) -> list[str]:
        """The hosts with this content; without one, those with what came last. The latest first."""
        ordered = sorted(self.hosts.items(), key=lambda one: (one[1].since, one[0]), reverse=True)
        if not ordered:
            return []
        if image_id is not None:
            return [host for host, held in ordered if held.is_content(image_id, diff_ids)]
        last = ordered[0][1]
        return [host for host, held in ordered if held is last or _same(held, last)]


def _same(one: HeldImage, other: HeldImage) -> bool:
    if None not in (one.image_id, other.image_id):
        return one.image_id == other.image_id
    return bool(one.diff_ids) and one.diff_ids == other.diff_ids


def route(
    held: HeldImages | None, *, mine: str, alive: Iterable[str], image_id: str | None, asked: Iterable[str] = ()
) -> str | None:
    """The host to ask for a push that names none: one that holds the content, else this one, else any that was not.

    None if all were asked. `alive` are the hosts that are there; this one counts as such.
    """
    there, past = {mine, *alive}, set(asked)
    holders = [one for one in held.holders(image_id) if one in there - past] if held is not None else []
    if mine in holders:
        return mine
    for host in (*holders, mine, *sorted(there)):
        if host not in past:
            return host
    return None
