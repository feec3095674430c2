"""Typed records: a Struct stored under a key, with a revision for optimistic concurrency.

A `Key[T]` names one record and the Struct in it. A write names what it expects to be there: the `Stored[T]` that
was read, or one of two constants. So a value of another type, or a forgotten revision, is an error of the type checker.

    found = await keys.wanted(range_id).load(bus)
    write = keys.wanted(range_id).write(changed, expected=found)      commits only if nobody wrote meanwhile
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from events.bus import BusClient, Record, RecordWrite
from events.malformed import MALFORMED

T = TypeVar("T", bound=msgspec.Struct)
U = TypeVar("U", bound=msgspec.Struct)

_encode = msgspec.json.Encoder().encode


class Expected(Enum):
    """What a write expects to be there when nothing was read before."""

    ABSENT = "absent"
    ANY = "any"


#: The write is the first, or a conflict.
ABSENT: Final[Literal[Expected.ABSENT]] = Expected.ABSENT
#: Whatever is there is replaced: for facts of which the last one counts.
ANY: Final[Literal[Expected.ANY]] = Expected.ANY


class UnreadableRecord(msgspec.DecodeError):
    """A stored value that cannot be decoded as the type of its key."""


@dataclass(frozen=True, slots=True)
class Stored(Generic[T]):
    """A record as it was read. Where there is none, `value` is None and `revision` is 0."""

    value: T | None
    revision: int


@dataclass(frozen=True, slots=True)
class Key(Generic[T]):
    """The name of one record, and the Struct that is stored there as JSON."""

    name: str
    kind: type[T]

    def read(self, record: Record | None) -> Stored[T]:
        """Decode a record that was loaded under this name. Raises UnreadableRecord."""
        if record is None:
            return Stored(None, 0)
        try:
            return Stored(_decoder(self.kind).decode(record.value), record.revision)
        except MALFORMED as problem:
            raise UnreadableRecord(f"the record {self.name} is no {self.kind.__name__}: {problem}") from problem

    def write(self, value: T, *, expected: Stored[T] | Expected, expires_seconds: float | None = None) -> RecordWrite:
        """Write `value` if the record is still what was read, or what is `expected`."""
        return RecordWrite(self.name, _encode(value), _revision(expected), expires_seconds)

    def delete(self, *, expected: Stored[T] | Expected) -> RecordWrite:
        """Delete the record if it is still what was read, or what is `expected`."""
        return RecordWrite(self.name, None, _revision(expected))

    async def load(self, bus: BusClient) -> Stored[T]:
        """Load the record. Raises BusError, UnreadableRecord."""
        return self.read(await bus.load(self.name))


async def load_all(bus: BusClient, keys: Sequence[Key[T]]) -> list[Stored[T]]:
    """The records of many keys, in their order, in one call. Raises BusError, UnreadableRecord."""
    if not keys:
        return []
    records = await bus.load_many([key.name for key in keys])
    return [key.read(record) for key, record in zip(keys, records, strict=True)]


async def load_values(bus: BusClient, keys: Sequence[Key[T]]) -> list[T]:
    """The values of those that are there. Raises BusError, UnreadableRecord."""
    return [found.value for found in await load_all(bus, keys) if found.value is not None]


async def load_both(bus: BusClient, first: Key[T], second: Key[U]) -> tuple[Stored[T], Stored[U]]:
    """Two records of different types in one call. Raises BusError, UnreadableRecord."""
    one, other = await bus.load_many([first.name, second.name])
    return first.read(one), second.read(other)


@cache
def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)


def _revision(expected: Stored[Any] | Expected) -> int | None:
    if isinstance(expected, Stored):
        return expected.revision
    return 0 if expected is ABSENT else None
