"""`events tail --api`: the latest events of the API's log, then its live events, from where a lost connection was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

import click

from services.cli.by_api import Caller
from services.cli.events.lines import event_line, letter_line
from services.cli.output import plain, print_json, size, talk
from services.cli.remote import ApiProblem, ServerSentEvent, full_url, listen
from services.errors import Unavailable

if TYPE_CHECKING:
    from services.queries.logged_events import LoggedEvent
    from services.queries.read_model.rows import TransferRow

T = TypeVar("T")
AGAIN_SECONDS = 2.0
#: Answers from here on are the server's trouble, which may pass.
SERVER_FAULT = 500
_PAGE = 1000


async def tail(api_url: str, last: int, *, follow: bool, with_progress: bool, as_json: bool) -> None:
    """Print the `last` events, and with `follow` those that come, without an end. Raises CyroidError."""
    call = Caller(api_url)
    if not follow:
        for one in await _latest(call, last):
            _print(one, as_json)
        return
    told: set[tuple[str, str]] = set()
    begun = False
    async with aclosing(_live(full_url(api_url, "events"))) as events:
        async for event in events:
            if not begun:  # what is said from here on is heard: now the log leaves no gap
                begun = True
                for one in await _latest(call, last):
                    told.add((one.stream, one.entry))
                    _print(one, as_json)
            _print_live(event, told, with_progress=with_progress, as_json=as_json)


async def _latest(call: Caller, last: int) -> list[LoggedEvent]:
    """The latest events, the oldest first."""
    import msgspec

    from services.queries.logged_events import LoggedEvent

    found: list[LoggedEvent] = []
    cursor = ""
    while len(found) < last:
        query = {"limit": str(min(last - len(found), _PAGE)), **({"cursor": cursor} if cursor else {})}
        page = await call("GET", ("event-log",), query=query)
        found += _decode(msgspec.json.encode(page["items"]), list[LoggedEvent])
        cursor = page["next"]
        if not cursor:
            break
    return found[::-1]


async def _live(url: str) -> AsyncGenerator[ServerSentEvent, None]:
    """Live events without an end: connected again where the connection ends, with the id of the last one."""
    last_id, connected = "", False
    while True:
        try:
            async with aclosing(listen(url, last_id)) as events:
                async for event in events:
                    connected = True
                    last_id = event.ident or last_id
                    yield event
        except (Unavailable, ApiProblem) as problem:
            if not connected or (problem.entry.http_status or SERVER_FAULT) < SERVER_FAULT:
                raise
            talk(plain(f"{problem}; it is tried again"))
        await asyncio.sleep(AGAIN_SECONDS)


def _print_live(event: ServerSentEvent, told: set[tuple[str, str]], *, with_progress: bool, as_json: bool) -> None:
    from services.queries.logged_events import LoggedEvent
    from services.queries.read_model.rows import TransferRow

    match event.event:
        case "event":
            one = _decode(event.data, LoggedEvent)
            if (one.stream, one.entry) not in told:
                _print(one, as_json)
        case "transfer" if with_progress:
            _print_transfer(_decode(event.data, TransferRow), as_json)
        case "reset":
            talk("events were left out: the connection was away for too long, or too slow")


def _print(one: LoggedEvent, as_json: bool) -> None:
    from datetime import datetime

    if as_json:
        print_json(one)
    elif one.type == "dead_letter":
        click.echo(letter_line(one.time, one.id, f"{one.group} gave up {one.of}", f"{one.reason}: {one.message}"))
    elif one.type == "unreadable":
        click.echo(plain(f"{one.stream} {one.entry} unreadable: {one.message}"))
    else:
        message = _decode(bytes(one.data), dict)
        click.echo(event_line(datetime.fromisoformat(one.time), one.type, one.subject, message, one.source))


def _print_transfer(row: TransferRow, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    moment = row.updated_at.astimezone().strftime("%H:%M:%S")
    amount = f"{size(row.done_bytes)} of {size(row.total_bytes)}" if row.total_bytes else size(row.done_bytes)
    click.echo(plain(f"{moment} {row.kind} {row.reference} {row.range_id or ''} {row.phase} {amount}"))


def _decode(data: bytes, kind: type[T]) -> T:
    """Raises BadInput."""
    import msgspec

    from events.malformed import MALFORMED
    from services.errors import BadInput

    try:
        return msgspec.json.decode(data, type=kind)
    except MALFORMED as problem:
        raise BadInput(f"the API's event is none of this version: {problem}") from problem
