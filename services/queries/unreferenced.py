"""Unreferenced images, from records alone: what ranges reported that they have, and what they should have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from events.bus import BusClient
from events.records import Key, T, load_all, load_values
from events.streams import Streams
from services.core.deployments.index import DeploymentKeys
from services.core.deployments.plans import PlanKeys
from services.core.images.read_model import RangeInventory, ReadModelKeys, RegistryEntry
from services.core.ranges.ranges import DesiredImages, RangeKeys
from services.core.ranges.unreferenced import UnreferencedImage, Wants, unwanted, unwanted_in_registry
from services.errors import NotFound

_PAGE = 200


class RangeUnreferenced(msgspec.Struct, frozen=True, kw_only=True):
    """The unreferenced images of one range, as its agent reported them at `as_of`; `alive` agents report again."""

    range_id: str
    agent: Literal["alive", "away"]
    as_of: datetime | None
    images: tuple[UnreferencedImage, ...]


async def in_range(bus: BusClient, streams: Streams, range_id: str) -> RangeUnreferenced:
    """The unreferenced images of one range. Raises NotFound for one that never reported its images."""
    found = await in_ranges(bus, streams, [range_id])
    if not found:
        raise NotFound(f"range {range_id} never reported its images", hint="cyroid-images ranges ls")
    return found[0]


async def in_ranges(
    bus: BusClient, streams: Streams, range_ids: Sequence[str] | None = None, *, held: RangeInventory | None = None
) -> list[RangeUnreferenced]:
    """Of all ranges, or of `range_ids`: a report for each that said what it has, if only that nothing is too much.

    `held` is what the engine of the one range that is asked about was seen to have, instead of its agent's word.
    """
    keys, holding_keys = RangeKeys(streams.prefix), ReadModelKeys(streams.prefix)
    under_way = await _under_way(bus, streams)
    names = sorted(await bus.members(keys.known_index)) if range_ids is None else list(range_ids)
    reports = []
    for start in range(0, len(names), _PAGE):
        page = names[start : start + _PAGE]
        beats = await bus.beats([streams.alive(name) for name in page])
        told = await load_all(bus, [holding_keys.holdings(name) for name in page])
        wanted = await load_all(bus, [keys.wanted(name) for name in page])
        for name, beat, word, should in zip(page, beats, told, wanted, strict=True):
            has = held or word.value
            if has is None or (held is None and not has.is_report):
                continue
            should_have = should.value or DesiredImages(range_id="")
            images = unwanted(has, should_have, under_way.get(name, {}))
            as_of = has.listed_at or has.heard_at
            agent: Literal["alive", "away"] = "away" if beat is None else "alive"
            reports.append(RangeUnreferenced(range_id=name, agent=agent, as_of=as_of, images=images))
    return reports


async def in_registry(bus: BusClient, streams: Streams) -> tuple[RegistryEntry, ...]:
    """Images in the registry that no range has or should have, and that no plan names; by reference."""
    keys, holding_keys, plans = RangeKeys(streams.prefix), ReadModelKeys(streams.prefix), PlanKeys(streams.prefix)
    names, ids = set[str](), set[str]()
    for wants in (await _under_way(bus, streams)).values():
        names.update(wants)
    for plan in await _all(bus, await bus.members(plans.all), plans.record):
        names.update(plan.images)
    ranges = await bus.members(keys.known_index)
    for wanted in await _all(bus, ranges, keys.wanted):
        for image in wanted.images.values():
            names.add(image.reference)
            ids.add(image.image_id)
    for holdings in await _all(bus, ranges, holding_keys.holdings):
        names.update(holdings.images)
        ids |= holdings.image_ids
    entries = await _all(bus, sorted(await bus.members(holding_keys.images)), holding_keys.image)
    return unwanted_in_registry(entries, names, ids)


async def _under_way(bus: BusClient, streams: Streams) -> Mapping[str, Wants]:
    """By range, the images of its open deployments, those of plans included."""
    keys = DeploymentKeys(streams.prefix)
    found: dict[str, dict[str, str | None]] = {}
    for deployment in await _all(bus, await bus.members(keys.open), keys.record):
        wants = found.setdefault(deployment.range_id, {})
        wants.update(dict.fromkeys(deployment.asked))
        wants.update({image.reference: image.image_id for image in deployment.images})
    return found


async def _all(bus: BusClient, idents: Sequence[str], key: Callable[[str], Key[T]]) -> list[T]:
    """The records there are, some hundred at a time."""
    found: list[T] = []
    for start in range(0, len(idents), _PAGE):
        found += await load_values(bus, [key(ident) for ident in idents[start : start + _PAGE]])
    return found
