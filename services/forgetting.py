"""Forgetting a range, or some of the images that it should have.

Of a range: what is known of it, what it should have, and what lies in its streams. An agent that comes up afterwards
announces the range anew, as one that nobody has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from events.bus import IndexWrite, Outcome, RecordConflict, RecordWrite
from events.lease import Bus
from events.streams import Streams
from services.core.holdings import HoldingKeys, Holdings
from services.core.ranges import RangeKeys, WantedImages
from services.core.references import Reference
from services.errors import NotFound, RangeAlive

_TRIES = 4


async def forget_range(bus: Bus, streams: Streams, range_id: str, *, force: bool = False) -> None:
    """Remove the records of a range and drop the entries of its streams.

    Raises RangeAlive while its agent is alive, unless `force`; NotFound where there is nothing to forget.
    """
    (beat,) = await bus.beats([streams.alive(range_id)])
    if beat is not None and not force:
        raise RangeAlive(
            f"the agent of range {range_id} is alive and would announce it again: end the range first, or force it"
            " (--force, over HTTP ?force=true)"
        )
    ranges, holdings = RangeKeys(streams.prefix), HoldingKeys(streams.prefix)
    keys = [ranges.known(range_id), ranges.wanted(range_id), ranges.place(range_id), holdings.holdings(range_id)]
    records = await bus.load_many(keys)
    outbox = streams.outbox(range_id)
    asked = range_id in await bus.members(ranges.asked)
    if not any(records) and not asked and outbox not in await bus.discover(outbox):
        raise NotFound(f"there is no range {range_id}: `cyroid-images ranges ls` lists those there are")
    indexes = [ranges.known_index, ranges.asked, ranges.places]
    held = records[3]
    if held is not None:
        with suppress(msgspec.DecodeError):
            image_ids = msgspec.json.decode(held.value, type=Holdings).image_ids
            indexes += [holdings.holders(image_id) for image_id in sorted(image_ids)]
    await bus.commit(
        Outcome(
            records=tuple(RecordWrite(key, None) for key in keys),
            index=tuple(IndexWrite(key, range_id, None) for key in indexes),
        )
    )
    for stream in (streams.inbox(range_id), outbox, streams.range_progress(range_id), streams.range_dead(range_id)):
        await bus.trim(stream, 0.0)


async def forget_images(bus: Bus, streams: Streams, range_id: str, references: Sequence[str]) -> list[str]:
    """What was deployed to a range and is not to be there any more: whoever removes it there finds it gone for good.

    Returns the references in full. The range's engine keeps what it has. Raises NotFound for an image that the range
    was not to have, RecordConflict where deployments to it end all the time.
    """
    names = [str(Reference.parse(reference)) for reference in references]
    for _ in range(_TRIES):
        with suppress(RecordConflict):  # a deployment to it ended at this very moment
            await _forget(bus, RangeKeys(streams.prefix).wanted(range_id), range_id, names)
            return names
    await _forget(bus, RangeKeys(streams.prefix).wanted(range_id), range_id, names)
    return names


async def _forget(bus: Bus, key: str, range_id: str, names: Sequence[str]) -> None:
    record = await bus.load(key)
    wanted = msgspec.json.decode(record.value, type=WantedImages) if record else WantedImages(range_id=range_id)
    unknown = [name for name in names if name not in wanted.images]
    if unknown:
        raise NotFound(
            f"range {range_id} is not meant to have {', '.join(unknown)}: `cyroid-images verify {range_id}` lists what"
            " it should have"
        )
    left = {name: image for name, image in wanted.images.items() if name not in names}
    value = msgspec.json.encode(msgspec.structs.replace(wanted, images=left))
    await bus.commit(Outcome(records=(RecordWrite(key, value, expected=record.revision if record else 0),)))
