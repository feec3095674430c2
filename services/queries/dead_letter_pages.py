"""Pages of dead letters, of all ranges that are known, without a walk through Redis's keys.

The letters of one stream come oldest first, and the streams one after the other: first the services' own, then those of
each range's agent, then what was refused of each range's outbox.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from events.lease import Bus
from events.malformed import MALFORMED
from events.streams import Streams
from services.errors import BadInput
from services.queries.dead_letters import DeadLetterView, view
from services.queries.events import letter_of

_MESSAGE_CHARACTERS = 500
#: Counting what matches a filter ends here.
COUNTED = 10_000


class DeadLetterRow(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter without its entry's fields. `on` is its stream; `stream`, `group`, `entry` are what it is of."""

    letter: str
    on: str
    stream: str
    group: str
    entry: str
    type: str
    reason: str
    message: str
    time: str
    failed: int
    crashed: int


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which letters; empty: all. `letters` are ids."""

    letters: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=1000)] = ()
    on: Annotated[str, Meta(max_length=512)] = ""
    group: Annotated[str, Meta(max_length=128)] = ""
    reason: Annotated[str, Meta(max_length=128)] = ""
    type: Annotated[str, Meta(max_length=128)] = ""

    def matches(self, letter: DeadLetterView) -> bool:
        return (
            (not self.letters or letter.letter in self.letters)
            and (not self.on or letter.on == self.on)
            and (not self.group or letter.group == self.group)
            and (not self.reason or letter.reason == self.reason)
            and (not self.type or letter.type == self.type)
        )


class LetterCursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last letter of a page."""

    on: str
    letter: Annotated[str, Meta(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$")]

    def encode(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> LetterCursor:
        """Raises BadInput."""
        try:
            content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            return msgspec.json.decode(content, type=cls)
        except (*MALFORMED, ValueError, binascii.Error) as problem:
            raise BadInput("cursor must be the `next` of an earlier answer of this list") from problem


class LetterPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page; `total` are all letters, or those that match the filter, counted up to ten thousand."""

    items: list[DeadLetterRow]
    next: str | None = None
    total: int = 0


def streams_of(streams: Streams, range_ids: Collection[str]) -> list[str]:
    """The dead-letter streams of the services and of these ranges."""
    names = sorted(range_ids)
    return [streams.dead, *map(streams.range_dead, names), *map(streams.refused, names)]


async def letters(
    bus: Bus,
    names: Sequence[str],
    wanted: LetterFilter,
    after: LetterCursor | None = None,
    lengths: Sequence[int] | None = None,
) -> AsyncIterator[DeadLetterView]:
    """The letters that match, behind `after`. `lengths`: those of `names`, where they are known. Raises BusError."""
    known = await bus.lengths(list(names)) if lengths is None else lengths
    chosen = [name for name, length in zip(names, known, strict=True) if length]
    full = [name for name in chosen if wanted.on in ("", name)]
    for name, start in _starts(full, names, after):
        async for entry in bus.tail((name,), after=start, follow=False):
            letter = letter_of(entry)
            if letter is not None and wanted.matches(shown := view(name, letter)):
                yield shown


def _starts(full: Sequence[str], names: Sequence[str], after: LetterCursor | None) -> Iterator[tuple[str, str]]:
    """The streams that are still to be read, and from where."""
    if after is not None and after.on not in names:
        raise BadInput("cursor must be the `next` of an earlier answer of this list")
    reached = -1 if after is None else names.index(after.on)
    for name in full:
        place = names.index(name)
        if place >= reached:
            yield name, after.letter if after is not None and place == reached else "0"


async def letter_page(
    bus: Bus, names: Sequence[str], wanted: LetterFilter, *, limit: int, cursor: str = ""
) -> LetterPage:
    """One page. Raises BadInput, BusError."""
    found: list[DeadLetterView] = []
    after, lengths = LetterCursor.decode(cursor) if cursor else None, await bus.lengths(list(names))
    async for letter in letters(bus, names, wanted, after, lengths):
        found.append(letter)
        if len(found) > limit:
            break
    items = found[:limit]
    following = LetterCursor(items[-1].on, items[-1].letter).encode() if len(found) > limit else None
    return LetterPage(
        items=[_row(one) for one in items], next=following, total=await count(bus, names, wanted, lengths)
    )


async def count(bus: Bus, names: Sequence[str], wanted: LetterFilter, lengths: Sequence[int] | None = None) -> int:
    """How many letters match, up to COUNTED. `lengths`: those of `names`, where they are known. Raises BusError."""
    known = await bus.lengths(list(names)) if lengths is None else lengths
    if wanted == LetterFilter():
        return sum(known)
    number = 0
    async for _ in letters(bus, names, wanted, lengths=known):
        number += 1
        if number >= COUNTED:
            break
    return number


def _row(letter: DeadLetterView) -> DeadLetterRow:
    return DeadLetterRow(
        letter=letter.letter,
        on=letter.on,
        stream=letter.stream,
        group=letter.group,
        entry=letter.entry,
        type=letter.type,
        reason=letter.reason[:_MESSAGE_CHARACTERS],
        message=letter.message[:_MESSAGE_CHARACTERS],
        time=letter.time,
        failed=letter.failed,
        crashed=letter.crashed,
    )
