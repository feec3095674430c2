"""Known hosts: whether each one is there, what its engine is, and how many images and ranges it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from events.bus import BusClient
from events.records import load_all
from events.streams import Streams
from services.core.hosts.hosts import HostKeys, HostRecord
from services.core.ranges.ranges import RangeKeys

_AT_ONCE = 500


class HostRow(msgspec.Struct, frozen=True, kw_only=True):
    """A host as it last reported. `state` is away when its registry-pusher sends no heartbeat.

    free_bytes      on the disk of its engine's data; None where that is not known
    ranges          known ranges that run there
    error           why its engine did not answer
    """

    host: str
    state: Literal["alive", "away"]
    machine: str
    engine_id: str
    engine_version: str
    store: str
    platform: str
    free_bytes: int | None
    images: int
    images_bytes: int
    ranges: int
    tar_url: str
    since: datetime
    seen_at: datetime
    error: str


async def known_hosts(bus: BusClient, streams: Streams, *, ranges: Mapping[str, int] | None = None) -> list[HostRow]:
    """All hosts that ever reported and were not forgotten, by their ids. Raises BusError.

    `ranges`: how many each host has, where that is known; else the record of every range is read.
    """
    keys = HostKeys(streams.prefix)
    hosts = sorted(await bus.members(keys.all))
    if not hosts:
        return []
    beats = await bus.beats([streams.host_alive(host) for host in hosts])
    stored = await load_all(bus, [keys.record(host) for host in hosts])
    counts = await _ranges(bus, streams) if ranges is None else ranges
    rows = []
    for host, beat, recorded in zip(hosts, beats, stored, strict=True):
        said = HostRecord.read(beat) or recorded.value
        if said is not None:
            rows.append(_row(said, is_alive=beat is not None, ranges=counts.get(host, 0)))
    return rows


async def _ranges(bus: BusClient, streams: Streams) -> Counter[str]:
    keys, found = RangeKeys(streams.prefix), Counter[str]()
    names = await bus.members(keys.known_index)
    for start in range(0, len(names), _AT_ONCE):
        stored = await load_all(bus, [keys.known(name) for name in names[start : start + _AT_ONCE]])
        found.update(one.value.host for one in stored if one.value is not None)
    return found


def _row(said: HostRecord, *, is_alive: bool, ranges: int) -> HostRow:
    return HostRow(
        host=said.host,
        state="alive" if is_alive else "away",
        machine=said.machine,
        engine_id=said.engine_id,
        engine_version=said.engine_version,
        store=said.store or "",
        platform=said.platform,
        free_bytes=said.free_bytes,
        images=said.images,
        images_bytes=said.images_bytes,
        ranges=ranges,
        tar_url=said.tar_url,
        since=said.since,
        seen_at=said.seen_at,
        error=said.error,
    )
