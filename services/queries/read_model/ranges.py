"""Ranges in memory: the agent's heartbeat, what the engine has and should have, and what is missing or unreferenced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from events.lease import Bus
from events.streams import Streams
from services.core.images.read_model import RangeInventory, ReadModelKeys
from services.core.mounts.problems import ReportedLayers
from services.core.ranges.contest import ContestedRange, ContestKeys
from services.core.ranges.drift import RangeState
from services.core.ranges.heartbeat import AgentHeartbeat
from services.core.ranges.ranges import DesiredImages, KnownRange, RangeKeys
from services.core.ranges.unreferenced import Wants, unwanted
from services.queries.read_model.images import RegistryImages
from services.queries.read_model.listing import Listing
from services.queries.read_model.record_follower import RecordFollower, parts
from services.queries.read_model.rows import Contest, RangeRow
from services.queries.read_model.table import Table
from services.queries.unreferenced import RangeUnreferenced

_BEATS_AT_ONCE = 1000


class HeldImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image that a range has."""

    reference: str
    image_id: str | None
    size_bytes: int = 0


class DesiredImageView(msgspec.Struct, frozen=True, kw_only=True):
    """An image that a range should have, and whether it has something under that name."""

    reference: str
    image_id: str
    deployment_id: str
    present: bool


class RangeDetails(RangeRow, frozen=True, kw_only=True):
    """A range with its images, its desired state, and its open deployments."""

    held: tuple[HeldImage, ...] = ()
    should_have: tuple[DesiredImageView, ...] = ()
    deployments: tuple[str, ...] = ()
    contest: ContestedRange | None = None
    proxy: str = ""
    no_proxy: str = ""


class Ranges:
    """The table of ranges."""

    def __init__(self, bus: Bus, streams: Streams, images: RegistryImages) -> None:
        self._bus = bus
        self._streams = streams
        self._images = images
        self._keys, self._contests_keys = RangeKeys(streams.prefix), ContestKeys(streams.prefix)
        read_model = ReadModelKeys(streams.prefix)
        self._known_follower = RecordFollower(bus, self._keys.known)
        self._wanted_follower = RecordFollower(bus, self._keys.wanted)
        self._held_follower = RecordFollower(bus, read_model.holdings)
        self._known: dict[str, KnownRange] = {}
        self._wanted: dict[str, DesiredImages] = {}
        self._held: dict[str, RangeInventory] = {}
        self._beats: dict[str, bytes | None] = {}
        self._contests: dict[str, ContestedRange] = {}
        self._inputs: dict[str, tuple[object, ...]] = {}
        self.ids: set[str] = set()
        self.addressed: set[str] = set()
        """Ranges that have streams: those that reported, and those that something was asked for."""
        self.table = Table[RangeRow](
            {
                "name": lambda row: row.range_id,
                "heard": lambda row: row.heard_at.timestamp() if row.heard_at else 0.0,
                "images": lambda row: row.images,
                "missing": lambda row: row.missing,
            }
        )
        self.listing = Listing(
            table=self.table,
            text=lambda row: f"{row.range_id} {row.host} {row.engine_version} {row.platform}",
            sorts={"name": "asc", "heard": "desc", "images": "desc", "missing": "desc"},
            state=lambda row: row.agent,
        )

    async def sync(self, under_way: Mapping[str, Wants]) -> tuple[set[str], set[str]]:
        """Take over what changed. Returns the ids of ranges and the references of images that did. Raises BusError."""
        ids = set(await self._bus.members(self._keys.known_index))
        self.addressed = ids | set(await self._bus.members(self._keys.asked))
        known = await self._known_follower.changes(ids | self.ids)
        wanted = await self._wanted_follower.changes(ids | self.ids)
        held = await self._held_follower.changes(ids | self.ids)
        _take(self._known, known)
        _take(self._wanted, wanted)
        images: set[str] = set()
        for range_id, inventory in held.items():
            before = self._held.get(range_id)
            images |= self._images.held(
                range_id, before.image_ids if before else (), inventory.image_ids if inventory else ()
            )
        _take(self._held, held)
        names = sorted(ids)
        beats: list[bytes | None] = []
        for few in parts(names, _BEATS_AT_ONCE):
            beats += await self._bus.beats([self._streams.alive(name) for name in few])
        self._beats = dict(zip(names, beats, strict=True))
        contested = await self._bus.members(self._contests_keys.index)
        loaded = await self._bus.load_many([self._contests_keys.record(name).name for name in contested])
        stored = [self._contests_keys.record(name).read(one) for name, one in zip(contested, loaded, strict=True)]
        self._contests = {one.value.range_id: one.value for one in stored if one.value is not None}
        gone, self.ids = self.ids - ids, ids
        changed = {range_id for range_id in gone if self.table.remove(range_id)}
        for range_id in gone:
            self._inputs.pop(range_id, None)
        news = known.keys() | wanted.keys() | held.keys()
        for name in names:
            wants = under_way.get(name, {})
            inputs = (
                self._spoken(name),
                tuple(sorted(wants.items(), key=lambda want: want[0])),
                self._contest(name),
            )
            if name in news or self._inputs.get(name) != inputs:
                self._inputs[name] = inputs
                if self.table.put(name, self._row(name, wants)):
                    changed.add(name)
        return changed, images

    def _spoken(self, range_id: str) -> tuple[str, ...]:
        """What a heartbeat says, without what every one says anew."""
        beat = self._beats.get(range_id)
        heartbeat = AgentHeartbeat.read(beat)
        if heartbeat is None:
            return ("away",) if beat is None else ("unreadable",)
        return (heartbeat.engine_id, heartbeat.engine_version)

    def _contest(self, range_id: str) -> Contest | None:
        found = self._contests.get(range_id)
        return Contest(engine_ids=found.engine_ids, since=found.since) if found else None

    def _row(self, range_id: str, under_way: Wants) -> RangeRow:
        known, held = self._known.get(range_id), self._held.get(range_id)
        wanted = self._wanted.get(range_id) or DesiredImages(range_id=range_id)
        beat = self._beats.get(range_id)
        heartbeat = AgentHeartbeat.read(beat)
        is_report = held is not None and held.is_report
        return RangeRow(
            range_id=range_id,
            host=known.host if known else "",
            agent="away" if beat is None else "unreadable" if heartbeat is None else "alive",
            engine_id=(heartbeat.engine_id if heartbeat else "") or (known.engine_id if known else ""),
            engine_version=(heartbeat.engine_version if heartbeat else "") or (known.engine_version if known else ""),
            store=known.store if known else "",
            platform=known.platform if known else "",
            heard_at=held.heard_at if held else known.started_at if known else None,
            images=len(held.images) + len(held.unnamed) if held else 0,
            desired=len(wanted.images),
            missing=sum(name not in held.images for name in wanted.images) if held and is_report else 0,
            unreferenced=len(unwanted(held, wanted, under_way)) if held and is_report else 0,
            open_deployments=1 if under_way else 0,
            contested=self._contest(range_id),
        )

    def needs(self) -> tuple[set[str], set[str]]:
        """Names and image ids that some range has or should have."""
        names = {name for wanted in self._wanted.values() for name in wanted.images}
        ids = {image.image_id for wanted in self._wanted.values() for image in wanted.images.values()}
        for held in self._held.values():
            names.update(held.images)
            ids |= held.image_ids
        return names, ids

    def unreferenced(self, range_id: str, under_way: Wants) -> RangeUnreferenced | None:
        """The images of a range that nobody needs there; None where it never reported its images."""
        held = self._held.get(range_id)
        if held is None or not held.is_report:
            return None
        wanted = self._wanted.get(range_id) or DesiredImages(range_id=range_id)
        return RangeUnreferenced(
            range_id=range_id,
            agent="alive" if self._beats.get(range_id) is not None else "away",
            as_of=held.listed_at or held.heard_at,
            images=unwanted(held, wanted, under_way),
        )

    def reported_layers(self) -> list[ReportedLayers]:
        """Mounted layers that agents which answer cannot read."""
        return [
            ReportedLayers(range_id, known.host, known.unreadable_layers)
            for range_id, known in self._known.items()
            if known.unreadable_layers and self._beats.get(range_id) is not None
        ]

    def state(self, range_id: str, under_way: Wants) -> RangeState:
        """What a verification compares."""
        beyond = self.unreferenced(range_id, under_way)
        return RangeState(
            wanted=self._wanted.get(range_id),
            known=self._known.get(range_id),
            held=self._held.get(range_id),
            unreferenced=beyond.images if beyond else (),
        )

    def with_beat(self, row: RangeRow, deployments: int) -> RangeRow:
        """The row with what changes every few seconds, which is no change of the table."""
        heartbeat = AgentHeartbeat.read(self._beats.get(row.range_id))
        at = heartbeat.at if heartbeat else ""
        return msgspec.structs.replace(row, at=at, open_deployments=deployments)

    def details(self, range_id: str, deployments: list[str]) -> RangeDetails | None:
        """A range with its images; None for one that is not known."""
        row = self.table.rows.get(range_id)
        if row is None:
            return None
        held = self._held.get(range_id) or RangeInventory(range_id=range_id)
        wanted = self._wanted.get(range_id) or DesiredImages(range_id=range_id)
        known = self._known.get(range_id)
        return RangeDetails(
            **msgspec.structs.asdict(self.with_beat(row, len(deployments))),
            held=tuple(
                HeldImage(reference=name, image_id=held.images[name], size_bytes=held.sizes.get(name, 0))
                for name in sorted(held.images)
            ),
            should_have=tuple(
                DesiredImageView(
                    reference=one.reference,
                    image_id=one.image_id,
                    deployment_id=one.deployment_id,
                    present=one.reference in held.images,
                )
                for one in wanted.images.values()
            ),
            deployments=tuple(deployments),
            contest=self._contests.get(range_id),
            proxy=known.proxy if known else "",
            no_proxy=known.no_proxy if known else "",
        )


T = TypeVar("T")


def _take(kept: dict[str, T], changes: Mapping[str, T | None]) -> None:
    for ident, value in changes.items():
        if value is None:
            kept.pop(ident, None)
        else:
            kept[ident] = value
