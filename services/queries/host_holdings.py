"""Holdings of a host: the images on one host's engine, by name, each compared with the registry."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from events.bus import BusClient
from events.records import load_all
from events.streams import Streams
from services.core.hosts.held_images import NEVER, HeldImage, HeldKeys
from services.core.hosts.hosts import HostKeys
from services.core.images.read_model import ReadModelKeys, RegistryEntry
from services.core.images.registry_scan import layers_hash
from services.errors import NotFound

_AT_ONCE = 500


class HoldingRow(msgspec.Struct, frozen=True, kw_only=True):
    """An image that a host holds.

    registry        same, other (that name has other content there) or no
    announced_at    when it was built, imported or promoted there; None for one that was only found on the engine
    """

    reference: str
    image_id: str | None
    local_id: str
    size_bytes: int
    platform: str
    registry: Literal["same", "other", "no"]
    announced_at: datetime | None = None


class Holdings(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a host's images, by name. `next`: the name behind which the following page begins."""

    items: list[HoldingRow]
    total: int
    next: str | None = None


async def holdings(
    bus: BusClient,
    streams: Streams,
    host: str,
    *,
    text: str = "",
    after: str = "",
    limit: int = 50,
) -> Holdings:
    """One page of what a host holds under names that contain `text`. Raises NotFound for an unknown host, BusError.

    What the registry has is what the tracker's records say.
    """
    if host not in await bus.members(HostKeys(streams.prefix).all):
        raise NotFound(f"there is no host {host}", hint="cyroid-images hosts ls")
    keys, registry, wanted = HeldKeys(streams.prefix), ReadModelKeys(streams.prefix), text.casefold()
    names = sorted(name for name in await bus.members(keys.of_host(host)) if wanted in name.casefold())
    page = [name for name in names if name > after][: limit + 1]
    rows: list[HoldingRow] = []
    for start in range(0, min(len(page), limit), _AT_ONCE):
        few = page[start : min(start + _AT_ONCE, limit)]
        stored = await load_all(bus, [keys.images(name) for name in few])
        there = await load_all(bus, [registry.image(name) for name in few])
        for held, entry in zip(stored, there, strict=True):
            if held.value is not None and host in held.value.hosts:
                rows.append(_row(held.value.reference, held.value.hosts[host], entry.value))
    return Holdings(items=rows, total=len(names), next=page[limit - 1] if len(page) > limit else None)


def _row(reference: str, held: HeldImage, there: RegistryEntry | None) -> HoldingRow:
    return HoldingRow(
        reference=reference,
        image_id=held.image_id,
        local_id=held.local_id,
        size_bytes=held.size_bytes,
        platform=held.platform,
        registry="no" if there is None else "same" if _is_same(held, there) else "other",
        announced_at=held.since if held.since != NEVER else None,
    )


def _is_same(held: HeldImage, there: RegistryEntry) -> bool:
    if held.image_id is not None:
        return held.image_id == there.image_id
    return bool(there.layers_hash) and there.layers_hash == layers_hash(held.diff_ids)
