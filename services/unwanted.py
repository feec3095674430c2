"""Reports what nobody wants, from records alone: what ranges said they have, and what they should have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from events.bus import Record, Speaker
from events.streams import Streams
from services.core.deployment import Deployment
from services.core.deployment_index import DeploymentKeys
from services.core.holdings import HoldingKeys, Holdings, RegistryEntry
from services.core.plans import Plan, PlanKeys
from services.core.ranges import RangeKeys, WantedImages
from services.core.unwanted import UnwantedImage, Wants, unwanted, unwanted_in_registry
from services.errors import NotFound

_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeReport:
    """What one range has that nobody wants. `as_of` is the last word of it; `alive`: its agent looks on."""

    range_id: str
    alive: bool
    as_of: datetime | None
    images: tuple[UnwantedImage, ...]

    def told(self) -> dict[str, Any]:
        """For programs."""
        agent = "alive" if self.alive else "away"
        return {"range_id": self.range_id, "agent": agent, "as_of": self.as_of, "images": self.images}


async def in_range(speaker: Speaker, streams: Streams, range_id: str) -> RangeReport:
    """Of one range. Raises NotFound for one that never said what it has."""
    found = await in_ranges(speaker, streams, [range_id])
    if not found:
        raise NotFound(f"range {range_id} never said what it has; `cyroid-images ranges ls` lists those that spoke")
    return found[0]


async def in_ranges(
    speaker: Speaker, streams: Streams, range_ids: Sequence[str] | None = None, *, held: Holdings | None = None
) -> list[RangeReport]:
    """Of all ranges, or of `range_ids`: a report for each that said what it has, if only that nothing is too much.

    `held` is what the engine of the one range that is asked about was seen to have, instead of its agent's word.
    """
    keys, holding_keys = RangeKeys(streams.prefix), HoldingKeys(streams.prefix)
    under_way = await _under_way(speaker, streams)
    names = sorted(await speaker.members(keys.known_index)) if range_ids is None else list(range_ids)
    reports = []
    for start in range(0, len(names), _PAGE):
        page = names[start : start + _PAGE]
        beats = await speaker.beats([streams.alive(name) for name in page])
        told = await speaker.load_many([holding_keys.holdings(name) for name in page])
        wanted = await speaker.load_many([keys.wanted(name) for name in page])
        for name, beat, word, should in zip(page, beats, told, wanted, strict=True):
            has = held or (msgspec.json.decode(word.value, type=Holdings) if word else None)
            if has is None:
                continue
            should_have = msgspec.json.decode(should.value, type=WantedImages) if should else WantedImages(range_id="")
            images = unwanted(has, should_have, under_way.get(name, {}))
            as_of = has.listed_at or has.heard_at
            reports.append(RangeReport(range_id=name, alive=beat is not None, as_of=as_of, images=images))
    return reports


async def in_registry(speaker: Speaker, streams: Streams) -> tuple[RegistryEntry, ...]:
    """What the registry was said to hold, and no range has or should have, and no plan names; by reference."""
    keys, holding_keys, plans = RangeKeys(streams.prefix), HoldingKeys(streams.prefix), PlanKeys(streams.prefix)
    names, ids = set[str](), set[str]()
    for wants in (await _under_way(speaker, streams)).values():
        names.update(wants)
    for record in await _all(speaker, await speaker.members(plans.all), plans.record):
        names.update(msgspec.json.decode(record.value, type=Plan).images)
    ranges = await speaker.members(keys.known_index)
    for record in await _all(speaker, ranges, keys.wanted):
        for image in msgspec.json.decode(record.value, type=WantedImages).images.values():
            names.add(image.reference)
            ids.add(image.image_id)
    for record in await _all(speaker, ranges, holding_keys.holdings):
        holdings = msgspec.json.decode(record.value, type=Holdings)
        names.update(holdings.images)
        ids |= holdings.image_ids
    records = await _all(speaker, sorted(await speaker.members(holding_keys.images)), holding_keys.image)
    entries = [msgspec.json.decode(record.value, type=RegistryEntry) for record in records]
    return unwanted_in_registry(entries, names, ids)


async def _under_way(speaker: Speaker, streams: Streams) -> Mapping[str, Wants]:
    """By range: what its open deployments are about, those of plans included."""
    keys = DeploymentKeys(streams.prefix)
    found: dict[str, dict[str, str | None]] = {}
    for record in await _all(speaker, await speaker.members(keys.open), keys.record):
        deployment = msgspec.json.decode(record.value, type=Deployment)
        wants = found.setdefault(deployment.range_id, {})
        wants.update(dict.fromkeys(deployment.asked))
        wants.update({image.reference: image.image_id for image in deployment.images})
    return found


async def _all(speaker: Speaker, idents: Sequence[str], key: Callable[[str], str]) -> list[Record]:
    """The records there are, some hundred at a time."""
    found: list[Record] = []
    for start in range(0, len(idents), _PAGE):
        records = await speaker.load_many([key(ident) for ident in idents[start : start + _PAGE]])
        found += [record for record in records if record is not None]
    return found
