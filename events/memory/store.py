"""Store of the bus in memory: streams with their entries, groups with their pending lists."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeAlias, TypeVar

#: The consumer in whose name entries are deferred, on Redis too. No worker is called so.
DEFERRED = "(deferred)"
#: How long a published id and a committed outcome are remembered, so that a repeat is absorbed.
REMEMBER_SECONDS = 7 * 86400.0

#: The greatest id that an entry of Redis can have: behind it none can be added.
LAST_ID = f"{2**64 - 1}-{2**64 - 1}"

Value = TypeVar("Value")
#: An event's end: verdict, and the lease that settled it (place, owner, deliveries).
Settled: TypeAlias = tuple[str, tuple[str, str], str, int]


@dataclass(slots=True)
class Pending:
    """One line of a group's pending list."""

    owner: str
    deliveries: int
    renewed: float
    failed: int = 0
    crashed: int = 0
    waited: int = 0
    progress: bytes | None = None


class Remembered(Generic[Value]):
    """Values kept for as long as Redis keeps them, so that a process that runs for months does not grow."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[float, Value]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Value | None:
        found = self._kept.get(key)
        return found[1] if found else None

    def put(self, key: bytes, value: Value, now: float) -> None:
        """Add a value at loop time `now`, and remove those that are too old."""
        self.drop(key)
        self._kept[key] = (now, value)
        for old in list(islice(self._kept, 2)):
            if self._kept[old][0] < now - REMEMBER_SECONDS:
                del self._kept[old]

    def drop(self, key: bytes) -> None:
        self._kept.pop(key, None)


@dataclass(slots=True)
class Group:
    """The state of one consumer group on one stream: given, acknowledged, deferred and finished entries."""

    delivered: str = "0-0"
    pending: dict[str, Pending] = field(default_factory=dict)
    deferred: dict[str, float] = field(default_factory=dict)
    outcomes: Remembered[Settled] = field(default_factory=Remembered)
    leases: dict[str, float] = field(default_factory=dict)

    def due(self, now: float) -> list[str]:
        """Deferred entries whose time has come, longest due first."""
        return sorted((entry for entry, due in self.deferred.items() if due <= now), key=lambda e: self.deferred[e])

    def forget(self, entry_id: str) -> None:
        self.pending.pop(entry_id, None)
        self.deferred.pop(entry_id, None)


@dataclass(slots=True)
class Stream:
    """Entries in order, under ids as Redis makes them (milliseconds-sequence)."""

    name: str
    entries: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    seen: Remembered[bool] = field(default_factory=Remembered)
    timers: list[tuple[float, dict[bytes, bytes]]] = field(default_factory=list)
    last_id: str = "0-0"

    def add(self, fields: dict[bytes, bytes], keep: int | None = None) -> str:
        now = round(time.time() * 1000)
        last, sequence = parse(self.last_id)
        self.last_id = f"{now}-0" if now > last else f"{last}-{sequence + 1}"
        self.entries[self.last_id] = fields
        if keep is not None and len(self.entries) > keep:
            del self.entries[next(iter(self.entries))]
        return self.last_id

    def after(self, entry_id: str) -> list[tuple[str, dict[bytes, bytes]]]:
        """Entries after a place, oldest first."""
        place = parse(entry_id)
        if place >= parse(self.last_id):
            return []
        found = []
        for one in reversed(self.entries):
            if parse(one) <= place:
                break
            found.append((one, self.entries[one]))
        return found[::-1]

    def group(self, name: str) -> Group:
        if name not in self.groups:
            self.groups[name] = Group()
        return self.groups[name]

    def fire(self, now: float) -> None:
        """Move timers that are due into the stream."""
        for timer in sorted((one for one in self.timers if one[0] <= now), key=lambda one: one[0]):
            self.timers.remove(timer)
            self.add(timer[1])

    def trim(self, oldest: str) -> int:
        """Drop entries before `oldest` that every group was given and has acknowledged."""
        if not self.groups:
            return 0
        limit = parse(oldest)
        for group in self.groups.values():
            limit = min(limit, parse(min(group.pending, key=parse) if group.pending else group.delivered))
        gone = [one for one in self.entries if parse(one) < limit]
        for one in gone:
            del self.entries[one]
        return len(gone)


def parse(entry_id: str) -> tuple[int, int]:
    """`123-4` as numbers, which sort as Redis sorts."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def next_due(streams: Iterable[tuple[Stream, Group]], now: float) -> float | None:
    """Seconds until the next deferred entry or timer of these streams is due; None: there is none."""
    moments: list[float] = []
    for stream, group in streams:
        moments += group.deferred.values()
        moments += (moment for moment, _ in stream.timers)
    return max(0.0, min(moments) - now) if moments else None
