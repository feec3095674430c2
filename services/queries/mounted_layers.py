"""Mounted layers of all hosts: what each host's layer-mounter shows its ranges, and which layers cannot be read."""

from __future__ import annotations

from collections.abc import Iterable

from events.bus import BusClient
from events.records import load_all, load_values
from events.streams import Streams
from services.core.hosts.hosts import HostKeys
from services.core.mounts.pins import MountedBlobs, MountKeys
from services.core.mounts.problems import ReportedLayers, UnreadableLayer, unreadable_layers
from services.core.ranges.ranges import RangeKeys

_AT_ONCE = 500


async def mounting_hosts(bus: BusClient, prefix: str) -> dict[str, MountedBlobs]:
    """What each host's layer-mounter recorded last. Raises BusError."""
    keys = MountKeys(prefix)
    hosts = sorted(await bus.members(keys.hosts))
    stored = await load_all(bus, [keys.host(host) for host in hosts])
    return {host: one.value for host, one in zip(hosts, stored, strict=True) if one.value is not None}


async def reported_layers(bus: BusClient, streams: Streams) -> list[ReportedLayers]:
    """What agents that answer reported as unreadable. Raises BusError."""
    keys = RangeKeys(streams.prefix)
    names = sorted(await bus.members(keys.known_index))
    found: list[ReportedLayers] = []
    for start in range(0, len(names), _AT_ONCE):
        known = await load_values(bus, [keys.known(name) for name in names[start : start + _AT_ONCE]])
        found += [
            ReportedLayers(one.range_id, one.host, one.unreadable_layers) for one in known if one.unreadable_layers
        ]
    beats = await bus.beats([streams.alive(one.range_id) for one in found]) if found else []
    return [one for one, beat in zip(found, beats, strict=True) if beat is not None]


async def all_unreadable(
    bus: BusClient, prefix: str, reported: Iterable[ReportedLayers]
) -> tuple[set[str], set[UnreadableLayer]]:
    """All hosts, and every layer that cannot be read, as hosts found it and agents `reported` it. Raises BusError."""
    found = {host: one.problems for host, one in (await mounting_hosts(bus, prefix)).items()}
    hosts = {*await bus.members(HostKeys(prefix).all), *found}
    return hosts, set(unreadable_layers(found, reported, hosts))
