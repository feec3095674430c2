"""Entries of streams for people: events and commands, dead letters, and unreadable entries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from events.bus import BusClient, Tailed
from events.dead_letters import DeadLetter, read_letter
from events.messages import LoadOffered, Message, PullRequested
from events.streams import Streams

_MASK = "***"


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """A message with its envelope's attributes; tokens in `data` are masked."""

    stream: str
    entry: str
    id: str
    type: str
    source: str
    subject: str
    time: datetime
    correlationid: str
    causationid: str | None
    actor: str = ""
    data: Message


class DeadEntry(msgspec.Struct, frozen=True):
    """The entry that was given up."""

    stream: str
    entry: str


class DeadLetterEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The event that a group gave up an entry, and why."""

    stream: str
    entry: str
    letter: str
    reason: str
    message: str
    group: str
    of: DeadEntry
    time: str
    correlationid: str | None


class UnreadableEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that is not a message."""

    stream: str
    entry: str
    error: str | None


EntryView = EventView | DeadLetterEvent | UnreadableEntry


def letter_of(entry: Tailed) -> DeadLetter | None:
    """The dead letter in an entry, if it is one."""
    if entry.envelope is not None:
        return None
    return read_letter(
        entry.entry_id, {name.encode(errors="surrogateescape"): value for name, value in entry.fields.items()}
    )


def entry_view(entry: Tailed) -> EntryView:
    """An entry as it is printed."""
    letter = letter_of(entry)
    if letter is not None:
        return DeadLetterEvent(
            stream=entry.stream,
            entry=entry.entry_id,
            letter=letter.letter_id,
            reason=letter.reason,
            message=letter.message,
            group=letter.group,
            of=DeadEntry(letter.stream, letter.entry_id),
            time=letter.time,
            correlationid=letter.envelope.correlation_id if letter.envelope else None,
        )
    if entry.envelope is None:
        return UnreadableEntry(stream=entry.stream, entry=entry.entry_id, error=entry.error)
    envelope = entry.envelope
    return EventView(
        stream=entry.stream,
        entry=entry.entry_id,
        id=envelope.id,
        type=str(type(envelope.message).__struct_config__.tag),
        source=envelope.source,
        subject=envelope.subject,
        time=envelope.time,
        correlationid=envelope.correlation_id,
        causationid=envelope.causation_id,
        actor=envelope.actor,
        data=_masked(envelope.message),
    )


async def related(bus: BusClient, streams: Streams, event_id: str) -> list[EntryView]:
    """The entry with that id, and everything that the same request caused, the oldest first.

    `event_id` is an event's id, its correlation id, or the id of its entry. Empty where nothing has it.
    """
    names = [one for one in await bus.discover(f"{streams.prefix}:*") if not one.endswith(":progress")]
    views = [entry_view(entry) async for entry in bus.tail(names, after="0", follow=False)]
    named = [one for one in views if event_id in (*_ids(one), _thread(one))]
    threads = {_thread(one) for one in named} - {None}
    found = [one for one in views if one in named or _thread(one) in threads]
    return sorted(found, key=lambda one: (_time(one), one.entry))


def is_named(view: EntryView, event_id: str) -> bool:
    """Whether the entry itself has that id, not only its request."""
    return event_id in _ids(view)


def _ids(view: EntryView) -> Sequence[str]:
    return (view.id, view.entry) if isinstance(view, EventView) else (view.entry,)


def _thread(view: EntryView) -> str | None:
    return None if isinstance(view, UnreadableEntry) else view.correlationid


def _time(view: EntryView) -> str:
    if isinstance(view, EventView):
        return view.time.isoformat()
    return "" if isinstance(view, UnreadableEntry) else view.time


def _masked(message: Message) -> Message:
    if isinstance(message, LoadOffered):
        return msgspec.structs.replace(message, token=_MASK)
    if isinstance(message, PullRequested) and message.registry_token:
        return msgspec.structs.replace(message, registry_token=_MASK)
    return message
