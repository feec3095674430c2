"""Lists for operators: dead letters, consumer groups and the event log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from services.api.lists.images import NoParameters
from services.api.lists.read import Read, ReadContext, Text
from services.errors import BadInput, NotFound
from services.queries.dead_letter_pages import LetterFilter, LetterPage, letter_page, letters, streams_of
from services.queries.dead_letters import DeadLetterView
from services.queries.logged_events import LoggedEvent
from services.queries.page import Page

Limit = Annotated[int, Meta(ge=1, le=1000, description="a number from 1 to 1000")]
CursorText = Annotated[str, Meta(max_length=4096, description="the `next` of an earlier answer")]


class LettersQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dead letters of one stream, group, reason or type."""

    limit: Limit = 50
    cursor: CursorText = ""
    on: Text = ""
    group: Text = ""
    reason: Text = ""
    type: Text = ""


class EventsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events of one type or subject, or of one request (`correlation_id`); those before an entry (`cursor`).

    `related`: the event with this id, correlation id or entry id, and all that the same request caused.
    """

    limit: Limit = 50
    cursor: CursorText = ""
    type: Text = ""
    subject: Text = ""
    correlation_id: Text = ""
    related: Text = ""
    q: Annotated[str, Meta(max_length=256, description="text of at most 256 characters")] = ""


class GroupRow(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer group on one stream. `lag` None: Redis cannot tell it."""

    stream: str
    group: str
    lag: int | None
    pending: int
    deferred: int
    oldest_unacked_seconds: float
    oldest_undelivered_seconds: float


def _streams(context: ReadContext) -> list[str]:
    return streams_of(context.streams, context.mirror.ranges.addressed)


async def dead_letters(context: ReadContext, path: Mapping[str, str], query: LettersQuery) -> LetterPage:
    wanted = LetterFilter(on=query.on, group=query.group, reason=query.reason, type=query.type)
    return await letter_page(context.bus, _streams(context), wanted, limit=query.limit, cursor=query.cursor)


async def dead_letter(context: ReadContext, path: Mapping[str, str], query: NoParameters) -> DeadLetterView:
    wanted = LetterFilter(letters=(path["letter_id"],))
    async for letter in letters(context.bus, _streams(context), wanted):
        return letter
    raise NotFound(f"there is no dead letter {path['letter_id']}", hint="cyroid-images events dead list")


async def groups(context: ReadContext, path: Mapping[str, str], query: NoParameters) -> Page[GroupRow]:
    streams, ranges = context.streams, sorted(context.mirror.ranges.addressed)
    names = [streams.images, streams.deployments, streams.deployer]
    names += [*map(streams.inbox, ranges), *map(streams.outbox, ranges)]
    statuses = await context.bus.groups(names, 0)
    return Page(
        items=[
            GroupRow(
                stream=one.stream,
                group=one.group,
                lag=one.lag,
                pending=one.pending,
                deferred=one.deferred,
                oldest_unacked_seconds=one.oldest_unacked_seconds,
                oldest_undelivered_seconds=one.oldest_undelivered_seconds,
            )
            for one in statuses
        ]
    )


async def event_log(context: ReadContext, path: Mapping[str, str], query: EventsQuery) -> Page[LoggedEvent]:
    """The newest first. The cursor is stream and entry of the last one."""
    found: list[LoggedEvent] = []
    begun = not query.cursor
    for entry in _related(context.recent.entries(), query.related):
        if not begun:
            begun = query.cursor == _place(entry)
            continue
        if _matches(entry, query):
            found.append(entry)
            if len(found) > query.limit:
                break
    if not begun:
        raise BadInput("cursor names an event that the log does not have any more: begin anew")
    items = found[: query.limit]
    return Page(items=items, next=_place(items[-1]) if len(found) > query.limit else None)


def _related(entries: Sequence[LoggedEvent], ident: str) -> Sequence[LoggedEvent]:
    if not ident:
        return entries
    named = [one for one in entries if ident in (one.id, one.entry, one.correlationid)]
    threads = {one.correlationid for one in named} - {""}
    return [one for one in entries if one.correlationid in threads or one in named]


def _place(entry: LoggedEvent) -> str:
    return f"{entry.stream}|{entry.entry}"


def _matches(entry: LoggedEvent, query: EventsQuery) -> bool:
    if query.q and query.q.casefold() not in _text(entry).casefold():
        return False
    return (
        (not query.type or entry.type in (query.type, f"{query.type}.v1"))
        and (not query.subject or entry.subject == query.subject)
        and (not query.correlation_id or entry.correlationid == query.correlation_id)
    )


def _text(entry: LoggedEvent) -> str:
    said = (entry.type, entry.subject, entry.source, entry.actor, entry.reason, entry.message, entry.group)
    return " ".join((*said, bytes(entry.data).decode()))


READS: tuple[Read[Any, Any], ...] = (
    Read(
        path="/api/v1/dead-letters",
        summary="dead letters: what a group gave up, and why; `on`, `group`, `reason`, `type`",
        function=dead_letters,
        query=LettersQuery,
        answer=LetterPage,
    ),
    Read(
        path="/api/v1/dead-letters/{letter_id}",
        summary="one dead letter with the fields of its entry; those with a token are left out",
        function=dead_letter,
        query=NoParameters,
        answer=DeadLetterView,
        errors=("not_found",),
    ),
    Read(
        path="/api/v1/groups",
        summary="consumer groups: how far each is behind on each stream",
        function=groups,
        query=NoParameters,
        answer=Page[GroupRow],
    ),
    Read(
        path="/api/v1/event-log",
        summary="the latest 2000 events, the newest first: `type`, `subject`, `correlation_id`, `related`, `q`",
        function=event_log,
        query=EventsQuery,
        answer=Page[LoggedEvent],
    ),
)
