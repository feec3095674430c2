"""Range records: known ranges, the desired images of each, and those that need an engine driven for them.

All of it is stored outside `{prefix}:range:<id>:…`, where a range's own agent may write.

    {prefix}:known:<range_id>      KnownRange, what its agent last said of itself
    {prefix}:wanted:<range_id>     DesiredImages, what it should have: the content of every deployment that succeeded
    {prefix}:place:<range_id>      EnginePlace, the engine of a range that has no agent of its own
    {prefix}:index:known           range ids by the time they last announced themselves
    {prefix}:index:asked           range ids by the time something was first asked for them
    {prefix}:index:places          range ids by the time the place was given

**A range without an agent.** A deployment that gives `engine_url` makes the deployer write the range's `EnginePlace`
and its entry in `index:places`, in one step with the deployment's record, and post to the range's inbox as for any
other. An `agent-pool` reads `index:places` (`BusClient.members`) now and then, loads each place, and runs the agent
program for it on the host's side: it reads that inbox in the group `agent`, drives the engine at `engine_url`, and
beats `Streams.alive(range_id)`. A place stays until another deployment of that range gives another address.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from events.messages import AgentStarted, PresentImage
from events.records import Key


@dataclass(frozen=True, slots=True)
class RangeKeys:
    """Names of records and indexes. `RangeKeys("cyroid").places == "cyroid:index:places"`."""

    prefix: str

    def known(self, range_id: str) -> Key[KnownRange]:
        return Key(f"{self.prefix}:known:{range_id}", KnownRange)

    def wanted(self, range_id: str) -> Key[DesiredImages]:
        return Key(f"{self.prefix}:wanted:{range_id}", DesiredImages)

    def place(self, range_id: str) -> Key[EnginePlace]:
        return Key(f"{self.prefix}:place:{range_id}", EnginePlace)

    @property
    def known_index(self) -> str:
        return f"{self.prefix}:index:known"

    @property
    def asked(self) -> str:
        return f"{self.prefix}:index:asked"

    @property
    def places(self) -> str:
        return f"{self.prefix}:index:places"


def believed(said_at: datetime, now: datetime) -> datetime:
    """The time of a range's message, never after `now`: the range's clock may be ahead or forged.

    A moment in the future would outrank whatever comes later, also from the next range under the same id.
    """
    return min(said_at, now)


class EnginePlace(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the engine of a range without an agent answers (`tcp://host:port`, `unix:///path`), and who said so.

    `host` has the agent pool that drives it; empty: the first one that finds it.
    """

    range_id: str
    engine_url: str
    deployment_id: str
    since: datetime
    host: str = ""


class KnownRange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the agent of a range said when it came up. `engine_id` changes when the range is recreated empty.

    `images` are those of `listed_at`, by the range's clock: of when it came up, or of a later look. `host` is where it
    runs, empty where that was not said. `gives_images`: its agent sends images when it is asked to. `unreadable_layers`
    are mounted layers of the engine that are not mounted, of `listed_at` as well.
    """

    range_id: str
    engine_id: str
    engine_version: str
    store: Literal["classic", "containerd"]
    platform: str
    started_at: datetime
    abilities: tuple[str, ...] = ()
    images: tuple[PresentImage, ...] = ()
    listed_at: datetime | None = None
    mounts_layers: bool = False
    proxy: str = ""
    no_proxy: str = ""
    host: str = ""
    gives_images: bool = False
    unreadable_layers: tuple[str, ...] = ()

    @classmethod
    def said(cls, message: AgentStarted, at: datetime) -> KnownRange:
        return cls(
            range_id=message.range_id,
            engine_id=message.engine_id,
            engine_version=message.engine_version,
            store=message.store,
            platform=message.platform,
            started_at=at,
            abilities=message.abilities,
            images=message.images,
            mounts_layers=message.mounts_layers,
            proxy=message.proxy,
            no_proxy=message.no_proxy,
            host=message.host or "",
            gives_images=message.gives_images,
            unreadable_layers=message.unreadable_layers,
        )


class DesiredImage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Content that a range should have under `reference`, which deployment brought it, and when (by the range).

    `source` is where the registry has it (`host:port/repository@digest`), None where it came by tar.
    """

    reference: str
    image_id: str
    diff_ids: tuple[str, ...]
    deployment_id: str
    since: datetime | None = None
    source: str | None = None

    def is_in(self, images: Iterable[PresentImage]) -> bool:
        """Whether one of `images` is this content under this name."""
        return any(
            self.reference in image.references
            and (image.image_id == self.image_id if image.image_id else image.diff_ids == self.diff_ids)
            for image in images
        )


class DesiredImages(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that a range should have, by reference."""

    range_id: str
    images: dict[str, DesiredImage] = {}

    def missing(self, images: Iterable[PresentImage]) -> tuple[DesiredImage, ...]:
        """What a range that has `images` lacks of what it should have."""
        present = tuple(images)
        return tuple(wanted for wanted in self.images.values() if not wanted.is_in(present))

    def absent(self, images: Iterable[PresentImage]) -> tuple[DesiredImage, ...]:
        """What a range that has `images` has under no such name at all."""
        names = {name for image in images for name in image.references}
        return tuple(wanted for wanted in self.images.values() if wanted.reference not in names)

    def lost(self, known: KnownRange) -> tuple[DesiredImage, ...]:
        """Desired images that were absent at the last inspection of the range's agent, and did not arrive since."""
        listed_at = known.listed_at or known.started_at
        return tuple(wanted for wanted in self.absent(known.images) if wanted.since is None or wanted.since < listed_at)
