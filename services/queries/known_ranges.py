"""Known ranges: whether each one's agent is alive, and what it last reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from events.bus import BusClient
from events.records import load_values
from events.streams import Streams
from services.core.ranges.contest import ContestedRange, ContestKeys
from services.core.ranges.heartbeat import AgentHeartbeat
from services.core.ranges.ranges import RangeKeys

_AT_ONCE = 500


class RangeView(msgspec.Struct, frozen=True, kw_only=True):
    """A range whose agent has reported. `unreadable`: its heartbeat cannot be decoded; then the rest is empty.

    `host`: where it runs, empty where that was not said. `contested`: two agents speak for it, on these engines, and
    its deployments wait.
    """

    range_id: str
    host: str = ""
    agent: Literal["alive", "away", "unreadable"]
    engine_id: str = ""
    incarnation: str = ""
    engine_version: str = ""
    at: str = ""
    """When it sent its last heartbeat, by its own clock."""
    contested: ContestedRange | None = None


async def known_ranges(bus: BusClient, streams: Streams) -> list[RangeView]:
    """Every range whose agent has reported, whether it is alive, and what it last reported.

    A range that was only ever named in requests may be a typing error: it is left out.
    """
    announced = set(await bus.members(RangeKeys(streams.prefix).known_index))
    outboxes = await bus.discover(streams.outbox_pattern)
    names = sorted(announced | {name for outbox in outboxes if (name := streams.range_of(outbox)) is not None})
    beats = await bus.beats([streams.alive(name) for name in names]) if names else []
    alive = {name for name, beat in zip(names, beats, strict=True) if beat is not None}
    doubtful = [name for name in names if name not in announced | alive]
    spoke = announced | alive | await _spoke(bus, streams, doubtful)
    contests = await _contests(bus, streams.prefix)
    hosts = await _hosts(bus, streams.prefix, sorted(announced))
    return [
        msgspec.structs.replace(_range(name, beat, contests.get(name)), host=hosts.get(name, ""))
        for name, beat in zip(names, beats, strict=True)
        if name in spoke
    ]


async def _hosts(bus: BusClient, prefix: str, names: Sequence[str]) -> dict[str, str]:
    """The host of each range whose agent said where it runs."""
    keys, found = RangeKeys(prefix), dict[str, str]()
    for start in range(0, len(names), _AT_ONCE):
        known = await load_values(bus, [keys.known(name) for name in names[start : start + _AT_ONCE]])
        found.update({one.range_id: one.host for one in known})
    return found


async def _contests(bus: BusClient, prefix: str) -> dict[str, ContestedRange]:
    keys = ContestKeys(prefix)
    found = await load_values(bus, [keys.record(range_id) for range_id in await bus.members(keys.index)])
    return {contest.range_id: contest for contest in found}


async def _spoke(bus: BusClient, streams: Streams, names: Sequence[str]) -> set[str]:
    """The ranges whose outbox has held a message."""
    outboxes = [streams.outbox(name) for name in names]
    said = {entry.stream async for entry in bus.tail(outboxes, after="0", follow=False)} if outboxes else set[str]()
    return {name for name in names if streams.outbox(name) in said}


def _range(name: str, beat: bytes | None, contested: ContestedRange | None) -> RangeView:
    """The view of one range. The range writes its heartbeat itself, so it may hold anything."""
    if beat is None:
        return RangeView(range_id=name, agent="away", contested=contested)
    heartbeat = AgentHeartbeat.read(beat)
    if heartbeat is None:
        return RangeView(range_id=name, agent="unreadable", contested=contested)
    return RangeView(
        range_id=name,
        agent="alive",
        engine_id=heartbeat.engine_id,
        incarnation=heartbeat.incarnation,
        engine_version=heartbeat.engine_version,
        at=heartbeat.at,
        contested=contested,
    )
