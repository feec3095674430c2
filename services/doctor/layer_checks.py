"""Check of mounted layers: whether a layer-mounter runs where ranges are shown some, and which cannot be read."""

from __future__ import annotations

from collections.abc import Collection

from events.bus import BusClient
from events.streams import Streams
from services.core.mounts.problems import UnreadableLayer
from services.doctor.findings import Note, Wrong
from services.queries.mounted_layers import all_unreadable, mounting_hosts, reported_layers

_SHOWN = 5


async def mounted_layers(bus: BusClient, streams: Streams) -> str:
    """`check_layers` of what layer-mounters and agents last said. Raises BusError as well."""
    shown = await mounting_hosts(bus, streams.prefix)
    mounting = [host for host, one in shown.items() if one.digests]
    beats = await bus.beats([streams.mounter_alive(host) for host in mounting]) if mounting else []
    away = [host for host, beat in zip(mounting, beats, strict=True) if beat is None]
    _, unreadable = await all_unreadable(bus, streams.prefix, await reported_layers(bus, streams))
    return check_layers(mounting, away, unreadable)


def check_layers(mounting: Collection[str], away: Collection[str], unreadable: Collection[UnreadableLayer]) -> str:
    """What is well. Raises Wrong for layers that cannot be read, Note for hosts without their layer-mounter.

    mounting  hosts that show layers to ranges
    away      those of them on which no layer-mounter runs
    """
    ranges = sorted({one.range_id for one in unreadable})
    if ranges:
        layers = len({one.diff_id for one in unreadable})
        raise Wrong(
            f"{layers} {'layer' if layers == 1 else 'layers'} cannot be read in {_few(ranges)}",
            "cyroid-images verify RANGE says why, and what helps",
        )
    if away:
        raise Note(
            f"no layer-mounter runs on {_few(sorted(away))}, where ranges have mounted layers: they do not come back"
            " after a restart of the host",
            "start it: cyroid-images serve layer-mounter",
        )
    if not mounting:
        return "no host shows ranges any"
    return f"all of {_few(sorted(mounting))} can be read"


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
