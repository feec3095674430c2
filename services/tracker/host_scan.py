"""Host scan: the images of the host's engine as records, listed once in a while and after each image that appears."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec

from events.bus import BusClient, Delivery, IndexWrite, Outcome, RecordConflict
from events.messages import ImageAppeared
from events.records import ANY, load_values
from services.core.images.image import EngineImage
from services.core.images.references import Reference
from services.core.images.registry_scan import HostImageEntry, ScanKeys, ScanReport, layers_hash
from services.errors import BadReference, CyroidError, EngineUnavailable
from services.ports import Engine

_AT_ONCE = 200
_ANSWER_SECONDS = 120.0


class HostScanner:
    """Scans the host's engine; of several trackers one at a time."""

    def __init__(
        self, *, bus: BusClient, engine: Engine, prefix: str, clock: Callable[[], datetime], every_seconds: float
    ) -> None:
        self._bus, self._engine, self._clock = bus, engine, clock
        self._keys = ScanKeys(prefix)
        self._every = timedelta(seconds=every_seconds)

    async def scan(self) -> bool:
        """Scan if it is time. Returns whether it was. Raises BusError."""
        now = self._clock()
        stored = await self._keys.host.load(self._bus)
        last = stored.value
        if last is not None and now - last.began_at < self._every:
            return False
        claim = ScanReport(began_at=now) if last is None else msgspec.structs.replace(last, began_at=now)
        try:
            await self._bus.commit(Outcome(records=(self._keys.host.write(claim, expected=stored),)))
        except RecordConflict:
            return False
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                images = await self._engine.images()
            report = await self._compare(now, _entries(images))
        except CyroidError as problem:
            report = msgspec.structs.replace(claim, error=problem.failure())
        except TimeoutError:
            slow = EngineUnavailable("the host's engine did not list its images in time")
            report = msgspec.structs.replace(claim, error=slow.failure())
        await self._bus.commit(Outcome(records=(self._keys.host.write(report, expected=ANY),)))
        return True

    async def _compare(self, began_at: datetime, found: dict[str, HostImageEntry]) -> ScanReport:
        names = await self._bus.members(self._keys.host_images)
        known: dict[str, HostImageEntry] = {}
        for start in range(0, len(names), _AT_ONCE):
            keys = [self._keys.host_image(name) for name in names[start : start + _AT_ONCE]]
            known |= {entry.reference: entry for entry in await load_values(self._bus, keys)}
        changed = [entry for name, entry in found.items() if known.get(name) != entry]
        gone = sorted(set(names) - found.keys())
        for start in range(0, len(changed), _AT_ONCE):
            await self._bus.commit(self._written(changed[start : start + _AT_ONCE]))
        for start in range(0, len(gone), _AT_ONCE):
            few = gone[start : start + _AT_ONCE]
            await self._bus.commit(
                Outcome(
                    records=tuple(self._keys.host_image(name).delete(expected=ANY) for name in few),
                    index=tuple(IndexWrite(self._keys.host_images, name, None) for name in few),
                )
            )
        added = sum(entry.reference not in known for entry in changed)
        return ScanReport(began_at=began_at, ended_at=self._clock(), rows=len(found), added=added, removed=len(gone))

    def _written(self, entries: Sequence[HostImageEntry]) -> Outcome:
        at = self._clock().timestamp()
        return Outcome(
            records=tuple(self._keys.host_image(one.reference).write(one, expected=ANY) for one in entries),
            index=tuple(IndexWrite(self._keys.host_images, one.reference, at) for one in entries),
        )

    async def appeared(self, delivery: Delivery[ImageAppeared]) -> Outcome:
        """An image that was built, imported or promoted is there at once."""
        message = delivery.message
        try:
            name = str(Reference.parse(message.reference))
        except BadReference:
            return Outcome()
        entry = HostImageEntry(
            reference=name,
            image_id=message.image_id,
            local_id=message.image_id,
            size_bytes=message.size_bytes,
            platform=message.platform,
        )
        return self._written([entry])


def _entries(images: Sequence[EngineImage]) -> dict[str, HostImageEntry]:
    """One entry for each name; an image without a name has one under its id."""
    found: dict[str, HostImageEntry] = {}
    for image in images:
        for name in image.references or (f"<none>@{image.local_id}",):
            found[name] = HostImageEntry(
                reference=name,
                image_id=image.image_id,
                local_id=image.local_id,
                size_bytes=image.size_bytes,
                platform=image.platform,
                layers=layers_hash(image.diff_ids),
            )
    return found
