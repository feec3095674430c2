"""Forget command: removes a range, or some of the images that it should have, from the desired state.

Of a range: its record, its desired images, and the entries of its streams. An agent that comes up afterwards
announces the range as a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from events.bus import IndexWrite, Outcome, RecordConflict
from events.lease import Bus
from events.records import ANY, Key, UnreadableRecord
from events.streams import Streams
from services.core.deployments.plans import PlanKeys
from services.core.images.read_model import ReadModelKeys
from services.core.images.references import Reference
from services.core.ranges.range_claims import claim_key
from services.core.ranges.ranges import DesiredImages, RangeKeys
from services.errors import NotFound, RangeAlive

_TRIES = 4


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """The range, or those of its images, that were forgotten."""

    range_id: str
    images: list[str]


async def forget_range(bus: Bus, streams: Streams, range_id: str, *, force: bool = False) -> None:
    """Remove the records of a range and drop the entries of its streams.

    Raises RangeAlive while its agent is alive, unless `force`; NotFound where there is nothing to forget.
    """
    (beat,) = await bus.beats([streams.alive(range_id)])
    if beat is not None and not force:
        raise RangeAlive(
            f"the agent of range {range_id} is alive and would announce it again: end the range first, or force it",
            hint="the same command with --force",
        )
    ranges, holdings = RangeKeys(streams.prefix), ReadModelKeys(streams.prefix)
    held_key = holdings.holdings(range_id)
    keys: list[Key[Any]] = [ranges.known(range_id), ranges.wanted(range_id), ranges.place(range_id), held_key]
    keys += [claim_key(streams.prefix, range_id), PlanKeys(streams.prefix).planned(range_id)]
    records = await bus.load_many([key.name for key in keys])
    outbox = streams.outbox(range_id)
    asked = range_id in await bus.members(ranges.asked)
    if not any(records) and not asked and outbox not in await bus.discover(outbox):
        raise NotFound(f"there is no range {range_id}", hint="cyroid-images ranges ls")
    indexes = [ranges.known_index, ranges.asked, ranges.places]
    with suppress(UnreadableRecord):
        held = held_key.read(records[3]).value
        if held is not None:
            indexes += [holdings.holders(image_id) for image_id in sorted(held.image_ids)]
    await bus.commit(
        Outcome(
            records=tuple(key.delete(expected=ANY) for key in keys),
            index=tuple(IndexWrite(key, range_id, None) for key in indexes),
        )
    )
    for stream in (streams.inbox(range_id), outbox, streams.range_progress(range_id), streams.range_dead(range_id)):
        await bus.trim(stream, 0.0)


async def forget_images(bus: Bus, streams: Streams, range_id: str, references: Sequence[str]) -> list[str]:
    """Remove images from the desired state of a range; the range's engine keeps them.

    Returns the references in full. Raises NotFound for an image that the range was not to have, RecordConflict
    where deployments to it end all the time.
    """
    names = [str(Reference.parse(reference)) for reference in references]
    for _ in range(_TRIES):
        with suppress(RecordConflict):  # a deployment to it ended at this very moment
            await _forget(bus, RangeKeys(streams.prefix).wanted(range_id), range_id, names)
            return names
    await _forget(bus, RangeKeys(streams.prefix).wanted(range_id), range_id, names)
    return names


async def _forget(bus: Bus, key: Key[DesiredImages], range_id: str, names: Sequence[str]) -> None:
    stored = await key.load(bus)
    wanted = stored.value or DesiredImages(range_id=range_id)
    unknown = [name for name in names if name not in wanted.images]
    if unknown:
        raise NotFound(
            f"{', '.join(unknown)} is not desired in range {range_id}", hint=f"cyroid-images verify {range_id}"
        )
    left = {name: image for name, image in wanted.images.items() if name not in names}
    await bus.commit(Outcome(records=(key.write(msgspec.structs.replace(wanted, images=left), expected=stored),)))
