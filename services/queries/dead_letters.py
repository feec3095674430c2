"""Dead letters for people: what a group gave up, why, and the entry's fields; redrive and drop."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from events.bus import BusClient
from events.dead_letters import DeadLetter, dead_letters
from events.lease import Bus
from events.streams import Streams
from services.errors import NotFound

#: Fields of a message's data that hold a secret.
_SECRET = (b'"token"', b'"registry_token"')


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True):
    """`on` is the stream of the letter; `stream`, `group` and `entry` say what was given up."""

    letter: str
    on: str
    reason: str
    message: str
    stream: str
    group: str
    entry: str
    failed: int
    crashed: int
    time: str
    type: str
    fields: dict[str, str]


class DeadLetterDone(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one dead letter. `to` is the stream that the entry was taken from."""

    letter: str
    to: str
    done: bool


class DeadLettersDone(msgspec.Struct, frozen=True, kw_only=True):
    """The results, or with `dry_run` what would be done."""

    items: list[DeadLetterDone]
    dry_run: bool


async def all_dead_letters(bus: Bus, streams: Streams) -> list[DeadLetterView]:
    """Every letter, the oldest of each stream first."""
    return [view(name, letter) for name in await _streams(bus, streams) for letter in await dead_letters(bus, name)]


async def chosen_dead_letters(bus: Bus, streams: Streams, letter_ids: Sequence[str]) -> list[DeadLetterView]:
    """The dead letters with these ids. Raises NotFound."""
    chosen = [one for one in await all_dead_letters(bus, streams) if one.letter in letter_ids]
    missing = set(letter_ids) - {one.letter for one in chosen}
    if missing:
        raise NotFound(f"no dead letter {', '.join(sorted(missing))}", hint="cyroid-images events dead list")
    return chosen


async def _streams(bus: BusClient, streams: Streams) -> list[str]:
    of_ranges = [*await bus.discover(streams.range_dead_pattern), *await bus.discover(streams.refused_pattern)]
    return [streams.dead, *of_ranges]


def view(on: str, letter: DeadLetter) -> DeadLetterView:
    """One dead letter as JSON; the data of an entry that carries a token is left out."""
    fields = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in letter.fields.items()}
    data = letter.fields.get(b"data", b"")
    if any(name in data for name in _SECRET):
        fields["data"] = f"({len(data)} bytes, not shown: they hold a token)"
    return DeadLetterView(
        letter=letter.letter_id,
        on=on,
        reason=letter.reason,
        message=letter.message,
        stream=letter.stream,
        group=letter.group,
        entry=letter.entry_id,
        failed=letter.failed,
        crashed=letter.crashed,
        time=letter.time,
        type=letter.fields.get(b"type", b"?").decode(errors="replace")[:40],
        fields=fields,
    )
