"""Scans by the tracker: what it last found in the registry, and on the host's engine.

{prefix}:scan:registry              ScanReport of the registry
{prefix}:scan:host                  ScanReport of the host's engine
{prefix}:host-image:<reference>     HostImageEntry, an image of the host's engine under one of its names
{prefix}:index:host-images          references on the host's engine, by the time they were last seen to change
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from events.messages import Failure
from events.records import Key


class ScanReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A scan: when it began and ended, and what it found. `ended_at` is of the last one that came to its end.

    `error` says why the latest one did not. `damaged` are the first names with damage.
    """

    began_at: datetime
    ended_at: datetime | None = None
    rows: int = 0
    added: int = 0
    removed: int = 0
    damaged: tuple[str, ...] = ()
    error: Failure | None = None


class HostImageEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image of the host's engine under one name. `image_id` None: its engine cannot tell; `layers` stands for them.

    `layers` is the hash of the diff IDs, so that two images can be compared without them.
    """

    reference: str
    image_id: str | None
    local_id: str
    size_bytes: int = 0
    platform: str = ""
    layers: str = ""


@dataclass(frozen=True, slots=True)
class ScanKeys:
    """Names under a key prefix."""

    prefix: str

    @property
    def registry(self) -> Key[ScanReport]:
        return Key(f"{self.prefix}:scan:registry", ScanReport)

    @property
    def host(self) -> Key[ScanReport]:
        return Key(f"{self.prefix}:scan:host", ScanReport)

    def host_image(self, reference: str) -> Key[HostImageEntry]:
        return Key(f"{self.prefix}:host-image:{reference}", HostImageEntry)

    @property
    def host_images(self) -> str:
        return f"{self.prefix}:index:host-images"


def layers_hash(diff_ids: Sequence[str]) -> str:
    """One text for a list of layers."""
    return hashlib.sha256("\n".join(diff_ids).encode()).hexdigest()[:32]
