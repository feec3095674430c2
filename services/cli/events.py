"""`cyroid-images events`: the group of `tail`, and beside it show, groups, schema, and the group `dead`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from services.cli.dead import dead
from services.cli.door import read_settings, run
from services.cli.output import json_flag, print_json, print_table
from services.cli.tail import entry_as_json, events

if TYPE_CHECKING:
    from events.lease import GroupStatus, PendingEntry
    from services.parts import Parts

__all__ = ["events"]


@events.command()
@click.argument("event_id")
@json_flag
@click.pass_context
def show(context: click.Context, /, *, event_id: str, as_json: bool) -> None:
    """Show one event, and everything that the same request caused, in the order it was said.

    EVENT_ID is an event's id, its correlation id, or the id of its entry.

    \b
    Example:
      cyroid-images events show 01980000-0000-7000-8000-000000000000
    """

    async def work(parts: Parts) -> list[dict[str, Any]]:
        bus = await parts.bus()
        streams = [one for one in await bus.discover(f"{parts.streams.prefix}:*") if not one.endswith(":progress")]
        entries = [entry_as_json(entry) async for entry in bus.tail(streams, after="0", follow=False)]
        named = [one for one in entries if event_id in (one.get("id"), one.get("correlationid"), one["entry"])]
        threads = {one.get("correlationid") for one in named} - {None}
        related = [one for one in entries if one in named or one.get("correlationid") in threads]
        return sorted(related, key=lambda one: (one.get("time", ""), one["entry"]))

    found = run(context, work)
    if not found:
        from services.errors import NotFound

        raise NotFound(f"no entry has the id or correlation id {event_id}; `events tail` shows what there is")
    if as_json:
        print_json({"items": found})
        return
    for one in found:
        mark = "→" if event_id in (one.get("id"), one["entry"]) else " "
        click.echo(f"{mark} {one.get('time', '?')} {one.get('type', one.get('error'))} {one.get('subject', '')}")
        click.echo(f"    {one['stream']} {one['entry']}  id {one.get('id')}  caused by {one.get('causationid')}")
        click.echo(f"    {one.get('data')}")


@events.command()
@click.option("--entries", type=click.IntRange(min=0), default=20, show_default=True, help="Pending ones per group.")
@json_flag
@click.pass_context
def groups(context: click.Context, /, *, entries: int, as_json: bool) -> None:
    """Show how far each group is on each stream, and who works on what.

    Lag is what was not handed out yet, pending what is worked on or put aside. A lease that is left means the worker
    renews; 0 means another one may take the entry.

    \b
    Example:
      watch cyroid-images events groups
    """

    async def work(parts: Parts) -> list[GroupStatus]:
        bus = await parts.bus()
        return await bus.groups(await bus.discover(f"{parts.streams.prefix}:*"), entries)

    found = run(context, work)
    if as_json:
        print_json({"items": found})
        return
    print_table(
        ("STREAM", "GROUP", "LAG", "PENDING", "ASIDE", "OLDEST UNACKED", "OLDEST UNDELIVERED"),
        [_row(status) for status in found],
    )
    for status in found:
        for entry in status.entries:
            owner = entry.owner or "put aside"
            said = f"  {entry.progress.decode(errors='replace')}" if entry.progress else ""
            click.echo(
                f"  {status.stream} {status.group} {entry.entry_id} {owner}{_lease(entry)}, "
                f"delivery {entry.deliveries}, {entry.age_seconds:.0f} s old{said}"
            )


@events.command()
@click.option("--type", "wire_type", metavar="TYPE", help="The JSON Schema of one type's data: image.built.v1.")
@click.pass_context
def schema(context: click.Context, /, *, wire_type: str | None) -> None:
    """Print the AsyncAPI 3 document of all streams and messages, or the JSON Schema of one.

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
