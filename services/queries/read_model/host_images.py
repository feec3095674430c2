"""Images of the host's engine in memory, each compared with what the registry has under its name."""

from __future__ import annotations

from typing import Literal

from events.lease import Bus
from services.core.images.registry_scan import HostImageEntry, ScanKeys
from services.queries.read_model.images import RegistryImages
from services.queries.read_model.listing import Listing
from services.queries.read_model.record_follower import RecordFollower
from services.queries.read_model.rows import HostImageRow
from services.queries.read_model.table import Table


class HostImages:
    """The table of the host's images, as the tracker's scan found them."""

    def __init__(self, bus: Bus, prefix: str, images: RegistryImages) -> None:
        self._bus = bus
        self._keys = ScanKeys(prefix)
        self._images = images
        self._follower = RecordFollower(bus, self._keys.host_image)
        self._entries: dict[str, HostImageEntry] = {}
        self._compared = -1
        self.table = Table[HostImageRow]({"name": lambda row: row.reference, "size": lambda row: row.size_bytes})
        self.listing = Listing(
            table=self.table,
            text=lambda row: row.reference,
            sorts={"name": "asc", "size": "desc"},
            state=lambda row: row.registry,
        )

    async def sync(self) -> set[str]:
        """Take over what the scan changed. Returns the references of rows that did. Raises BusError."""
        names = set(await self._bus.members(self._keys.host_images))
        changes = await self._follower.changes(names | self._entries.keys())
        for name, entry in changes.items():
            if entry is None:
                self._entries.pop(name, None)
            else:
                self._entries[name] = entry
        if not changes and self._compared == self._images.table.version:
            return set()
        self._compared = self._images.table.version
        return self.compare()

    def compare(self) -> set[str]:
        """Compare every image with the registry again. Returns the references of rows that changed."""
        changed = {name for name in set(self.table.rows) - self._entries.keys() if self.table.remove(name)}
        return changed | {name for name, entry in self._entries.items() if self.table.put(name, self._row(entry))}

    def _row(self, entry: HostImageEntry) -> HostImageRow:
        return HostImageRow(
            reference=entry.reference,
            image_id=entry.image_id,
            local_id=entry.local_id,
            size_bytes=entry.size_bytes,
            platform=entry.platform,
            registry=self._state(entry),
        )

    def _state(self, entry: HostImageEntry) -> Literal["same", "other", "no", "-"]:
        if entry.reference.startswith("<none>"):
            return "-"
        there = self._images.content_of(entry.reference)
        if there is None:
            return "no"
        if entry.image_id is not None:
            return "same" if there.image_id == entry.image_id else "other"
        return "same" if there.layers_hash and there.layers_hash == entry.layers else "other"
