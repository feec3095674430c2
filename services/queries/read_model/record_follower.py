"""Record follower: finds out by their revisions which of many records changed, and loads those alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Generic, TypeVar

import msgspec

from events.lease import Bus
from events.records import Key, UnreadableRecord
from services.runtime.telemetry import get_logger

log = get_logger(role="read-model")
T = TypeVar("T", bound=msgspec.Struct)
_AT_ONCE = 1000
_LOADED_AT_ONCE = 200


class RecordFollower(Generic[T]):
    """Follows the records of one kind. `key` names the record of an id."""

    def __init__(self, bus: Bus, key: Callable[[str], Key[T]]) -> None:
        self._bus = bus
        self._key = key
        self._revisions: dict[str, int] = {}

    async def changes(self, idents: Collection[str]) -> dict[str, T | None]:
        """The records of `idents` that changed since they were last asked for; None for one that is gone.

        A record that cannot be read is logged, and stays what it was. Raises BusError.
        """
        found: dict[str, T | None] = {}
        for part in parts(sorted(idents), _AT_ONCE):
            revisions = await self._bus.revisions([self._key(ident).name for ident in part])
            known = zip(part, revisions, strict=True)
            changed = [ident for ident, revision in known if revision != self._revisions.get(ident, 0)]
            for few in parts(changed, _LOADED_AT_ONCE):
                await self._load(few, found)
        return found

    async def _load(self, idents: list[str], found: dict[str, T | None]) -> None:
        keys = [self._key(ident) for ident in idents]
        records = await self._bus.load_many([key.name for key in keys])
        for ident, key, record in zip(idents, keys, records, strict=True):
            if record is None:
                self._revisions.pop(ident, None)
                found[ident] = None
                continue
            self._revisions[ident] = record.revision
            try:
                found[ident] = key.read(record).value
            except UnreadableRecord as problem:
                log.warning("record cannot be read", record=key.name, reason=str(problem))

    def known(self) -> Collection[str]:
        """The ids of records that were there."""
        return self._revisions.keys()

    def forget_all(self) -> None:
        """Load every record again that is asked for the next time.

        A record that was deleted and written anew may have the revision that it had before.
        """
        self._revisions.clear()


def parts(names: list[str], size: int) -> Iterator[list[str]]:
    """A long list in pieces."""
    for start in range(0, len(names), size):
        yield names[start : start + size]
