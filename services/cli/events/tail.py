"""`cyroid-images events tail`: follows the messages on all streams."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from services.cli.command_group import run
from services.cli.events import over_api
from services.cli.events.lines import event_line, letter_line
from services.cli.output import json_flag, plain, print_json
from services.cli.remote import api_option

if TYPE_CHECKING:
    from events.bus import Tailed
    from events.streams import Streams
    from services.resources import Resources


@click.group()
def events() -> None:
    """Follow and inspect the events on the bus."""


@events.command()
@click.option(
    "-n", "--last", type=click.IntRange(min=0), default=10, show_default=True, help="Begin with so many earlier ones."
)
@click.option("--follow/--no-follow", default=True, show_default=True, help="Wait for further ones, until Ctrl-C.")
@click.option(
    "--range",
    "range_ids",
    multiple=True,
    metavar="ID",
    help="Only this range's streams, besides the shared ones; may be repeated.",
)
@click.option("--progress", "with_progress", is_flag=True, help="Show progress of transfers too.")
@api_option
@json_flag
@click.pass_context
def tail(
    context: click.Context,
    /,
    *,
    last: int,
    follow: bool,
    range_ids: Sequence[str],
    with_progress: bool,
    api_url: str | None,
    as_json: bool,
) -> None:
    """Show events and commands as they are published.

    With --api these are the streams of images, deployments and dead letters, of the latest 2000 events on; it connects
    again after the API was away.

    \b
    Examples:
      cyroid-images events tail
      cyroid-images events tail -n 1000 --no-follow --json | jq -r .type | sort | uniq -c
    """
    if api_url is not None:
        if range_ids:
            raise click.UsageError("--range is for tails without --api: it tells the shared streams alone")
        asyncio.run(over_api.tail(api_url, last, follow=follow, with_progress=with_progress, as_json=as_json))
        return

    async def work(resources: Resources) -> None:
        bus = await resources.bus()
        names = await _names(
            resources.streams, range_ids, with_progress, await bus.discover(resources.streams.outbox_pattern)
        )
        old: list[tuple[tuple[int, float, int], str, Tailed]] = []
        places = dict.fromkeys(names, "0")
        async for entry in bus.tail(names, after="0", follow=False):
            places[entry.stream] = entry.entry_id
            heapq.heappush(old, (_when(entry), entry.stream, entry))  # streams come one after the other
            if len(old) > last:
                heapq.heappop(old)
        for _, _, entry in sorted(old, key=lambda one: one[:2]):
            _print(entry, as_json)
        if follow:
            async for entry in bus.tail(names, after=places):
                _print(entry, as_json)

    run(context, work)


async def _names(streams: Streams, range_ids: Sequence[str], with_progress: bool, outboxes: Sequence[str]) -> list[str]:
    shared = [streams.images, streams.deployments, streams.dead, *([streams.progress] if with_progress else [])]
    known = [name for outbox in outboxes if (name := streams.range_of(outbox)) is not None]
    chosen = list(range_ids) or known
    return [*shared, *(stream for name in chosen for stream in _of_range(streams, name))]


def _of_range(streams: Streams, range_id: str) -> tuple[str, ...]:
    return streams.inbox(range_id), streams.outbox(range_id), streams.range_dead(range_id)


def _when(entry: Tailed) -> tuple[int, float, int]:
    """The sort key of an entry.

    Entry ids of different streams have milliseconds only; the publishers' clocks decide within one.
    """
    milliseconds, _, sequence = entry.entry_id.partition("-")
    spoken = entry.envelope.time.timestamp() if entry.envelope else 0.0
    return int(milliseconds), spoken, int(sequence or 0)


def _print(entry: Tailed, as_json: bool) -> None:
    from services.queries.events import entry_view, letter_of

    if as_json:
        print_json(entry_view(entry))
        return
    letter = letter_of(entry)
    if letter is not None:
        given_up = f"{letter.group} gave up {letter.entry_id} of {letter.stream}"
        click.echo(letter_line(letter.time, letter.letter_id, given_up, f"{letter.reason}: {letter.message}"))
    elif entry.envelope is None:
        click.echo(plain(f"{entry.stream} {entry.entry_id} unreadable: {entry.error}"))
    else:
        envelope = entry.envelope
        what = str(type(envelope.message).__struct_config__.tag)
        click.echo(event_line(envelope.time, what, envelope.subject, envelope.message, envelope.source))
