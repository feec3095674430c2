"""`cyroid-images events`: the group of `tail`, and beside it show, groups, schema, and the group `dead`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from services.cli.by_api import ApiRequest, by_api, get
from services.cli.command_group import read_settings, run
from services.cli.events.dead import dead
from services.cli.events.tail import events
from services.cli.output import json_flag, plain, print_json, print_page, print_table

if TYPE_CHECKING:
    from events.lease import GroupStatus, PendingEntry
    from services.queries.events import EntryView
    from services.resources import Resources

__all__ = ["events"]
NOT_FOUND_STATUS = 2


def _show_request(event_id: str) -> ApiRequest:
    asked = get("event-log", related=event_id)
    reason = f"none of the latest events has the id or correlation id {event_id}"
    return replace(asked, failed=lambda page: not page["items"] and reason, failed_status=NOT_FOUND_STATUS)


@events.command()
@click.argument("event_id")
@json_flag
@click.pass_context
@by_api(_show_request)
def show(context: click.Context, /, *, event_id: str, as_json: bool) -> None:
    """Show one event and all that its request caused.

    EVENT_ID is an event's id, its correlation id, or the id of its entry. With --api it is looked for among the latest
    2000 events.

    \b
    Example:
      cyroid-images events show 01980000-0000-7000-8000-000000000000
    """

    from services.queries.events import is_named, related

    async def work(resources: Resources) -> list[EntryView]:
        return await related(await resources.bus(), resources.streams, event_id)

    found = run(context, work)
    if not found:
        from services.errors import NotFound

        raise NotFound(f"no entry has the id or correlation id {event_id}", hint="cyroid-images events tail")
    if as_json:
        print_page(found)
        return
    for one in found:
        mark = "→" if is_named(one, event_id) else " "
        for line in _lines(one):
            click.echo(plain(f"{mark} {line}"))
            mark = "   "


@events.command()
@click.option(
    "--entries",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="How many pending entries to show per group; none with --api.",
)
@json_flag
@click.pass_context
@by_api(lambda entries: get("groups"))
def groups(context: click.Context, /, *, entries: int, as_json: bool) -> None:
    """Show the backlog of each consumer group.

    Lag is what was not handed out yet, pending what is worked on or deferred. A lease that is left means the worker
    renews; 0 means another one may take the entry.

    \b
    Example:
      watch cyroid-images events groups
    """

    async def work(resources: Resources) -> list[GroupStatus]:
        bus = await resources.bus()
        return await bus.groups(await bus.discover(f"{resources.streams.prefix}:*"), entries)

    found = run(context, work)
    if as_json:
        print_page(found)
        return
    print_table(
        ("STREAM", "GROUP", "LAG", "PENDING", "DEFERRED", "OLDEST UNACKED", "OLDEST UNDELIVERED"),
        [_row(status) for status in found],
    )
    for status in found:
        for entry in status.entries:
            owner = entry.owner or "deferred"
            said = f"  {entry.progress.decode(errors='replace')}" if entry.progress else ""
            click.echo(
                f"  {status.stream} {status.group} {entry.entry_id} {owner}{_lease(entry)}, "
                f"delivery {entry.deliveries}, {entry.age_seconds:.0f} s old{said}"
            )


@events.command()
@click.option(
    "--type", "wire_type", metavar="TYPE", help="Print the JSON Schema of this type's data, such as image.built.v1."
)
@click.pass_context
def schema(context: click.Context, /, *, wire_type: str | None) -> None:
    """Print the AsyncAPI document, or one JSON Schema.

    \b
    Examples:
      cyroid-images events schema > asyncapi.json
      cyroid-images events schema --type image.built.v1
    """
    from events.schema import asyncapi, json_schemas
    from events.streams import Streams
    from services.errors import NotFound

    if wire_type is None:
        print_json(asyncapi(Streams(read_settings(context).key_prefix)))
        return
    known = json_schemas()
    if wire_type not in known:
        raise NotFound(f"there is no type {wire_type}; there are: {', '.join(sorted(known))}")
    print_json(known[wire_type])


def _lines(view: EntryView) -> Iterator[str]:
    """An entry in full, its first line the one that is marked."""
    import msgspec

    from services.queries.events import DeadLetterEvent, EventView

    match view:
        case EventView():
            yield f"{view.time.isoformat()} {view.type} {view.subject}"
            yield f"{view.stream} {view.entry}  id {view.id}  caused by {view.causationid}"
            yield str(msgspec.to_builtins(view.data))
        case DeadLetterEvent():
            yield f"{view.time} dead letter: {view.reason}: {view.message}"
            yield f"{view.stream} {view.entry}  {view.group} gave up {view.of.entry} of {view.of.stream}"
        case _:
            yield f"? {view.error}"
            yield f"{view.stream} {view.entry}"


def _lease(entry: PendingEntry) -> str:
    if entry.owner is None:
        return ""
    if entry.lease_left_seconds is None:
        return f": renewed {entry.idle_seconds:.1f} s ago"
    return f": lease left {max(0.0, entry.lease_left_seconds):.1f} s"


def _row(status: GroupStatus) -> Sequence[str]:
    return (
        status.stream,
        status.group,
        "?" if status.lag is None else str(status.lag),
        str(status.pending),
        str(status.deferred),
        f"{status.oldest_unacked_seconds:.0f} s",
        f"{status.oldest_undelivered_seconds:.0f} s",
    )


events.add_command(dead)
