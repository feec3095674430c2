"""`cyroid-images events dead`: entries that a consumer gave up on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from services.cli.door import run
from services.cli.output import json_flag, print_json, print_table

if TYPE_CHECKING:
    from events.dead import DeadLetter
    from events.lease import Bus
    from services.parts import Parts

_SECRET = {b"token", b"registry_token"}


@click.group()
def dead() -> None:
    """Look at dead letters, send them again, or drop them."""


@dead.command(name="list")
@json_flag
@click.pass_context
def list_letters(context: click.Context, /, *, as_json: bool) -> None:
    """List all dead letters, oldest first.

    \b
    Example:
      cyroid-images events dead list
    """
    letters = run(context, _all)
    if as_json:
        print_json({"items": [_as_json(stream, letter) for stream, letter in letters]})
        return
    rows = [
        (letter.letter_id, letter.time, _kind(letter), letter.group, letter.reason, letter.message[:80])
        for _, letter in letters
    ]
    print_table(("LETTER", "TIME", "TYPE", "GROUP", "REASON", "MESSAGE"), rows)


@dead.command()
@click.argument("letter_id")
@json_flag
@click.pass_context
def show(context: click.Context, /, *, letter_id: str, as_json: bool) -> None:
    """Show one dead letter with every field its entry had.

    \b
    Example:
      cyroid-images events dead show 1795442944833-0
    """
    ((stream, letter),) = run(context, lambda parts: _chosen(parts, [letter_id], every=False))
    if as_json:
        print_json(_as_json(stream, letter))
        return
    click.echo(f"{letter.letter_id} on {stream}, {letter.time}")
    click.echo(f"  {letter.group} gave it up: {letter.reason}: {letter.message}")
    click.echo(f"  it was {letter.entry_id} on {letter.stream}; failed {letter.failed}, crashed {letter.crashed} times")
    for name, value in _shown(letter).items():
        click.echo(f"  {name}: {value}")


@dead.command()
@click.argument("letter_ids", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do it. Without this, say only what would be done.")
@json_flag
@click.pass_context
def redrive(context: click.Context, /, *, letter_ids: Sequence[str], every: bool, yes: bool, as_json: bool) -> None:
    """Send dead letters to their streams again. Says only what it would do unless --yes is given.

    Their group handles them as if for the first time; groups that were done with the entry are not bothered.

    \b
    Examples:
      cyroid-images events dead redrive 1795442944833-0
      cyroid-images events dead redrive --all --yes
    """
    _each(context, letter_ids, every=every, yes=yes, as_json=as_json, verb="redrive", act=_redrive)


@dead.command()
@click.argument("letter_ids", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do it. Without this, say only what would be done.")
@json_flag
@click.pass_context
def drop(context: click.Context, /, *, letter_ids: Sequence[str], every: bool, yes: bool, as_json: bool) -> None:
    """Remove dead letters for good. Says only what it would do unless --yes is given.

    \b
    Example:
      cyroid-images events dead drop 1795442944833-0 --yes
    """
    _each(context, letter_ids, every=every, yes=yes, as_json=as_json, verb="drop", act=_drop)


async def _redrive(bus: Bus, stream: str, letter_id: str) -> bool:
    return await bus.redrive(stream, letter_id)


async def _drop(bus: Bus, stream: str, letter_id: str) -> bool:
    return await bus.drop(stream, letter_id)


def _each(
    context: click.Context,
    letter_ids: Sequence[str],
    *,
    every: bool,
    yes: bool,
    as_json: bool,
    verb: str,
    act: Callable[[Bus, str, str], Awaitable[bool]],
) -> None:
    if bool(letter_ids) == every:
        raise click.UsageError("name the letters, or say --all")

    async def work(parts: Parts) -> list[dict[str, Any]]:
        bus = await parts.bus()
        return [
            {"letter": letter.letter_id, "to": letter.stream, "done": yes and await act(bus, stream, letter.letter_id)}
            for stream, letter in await _chosen(parts, letter_ids, every=every)
        ]

    done = run(context, work)
    if as_json:
        print_json({"items": done, "dry_run": not yes})
        return
    for one in done:
        state = "done" if one["done"] else "gone meanwhile" if yes else "would be done; add --yes"
        click.echo(f"{verb} {one['letter']} (of {one['to']}): {state}")


async def _all(parts: Parts) -> list[tuple[str, DeadLetter]]:
    """Every letter with the stream it lies on."""
    from events.dead import dead_letters

    bus = await parts.bus()
    streams = [parts.streams.dead, *await bus.discover(parts.streams.range_dead_pattern)]
    return [(stream, letter) for stream in streams for letter in await dead_letters(bus, stream)]


async def _chosen(parts: Parts, letter_ids: Sequence[str], *, every: bool) -> list[tuple[str, DeadLetter]]:
    from services.errors import NotFound

    letters = await _all(parts)
    if every:
        return letters
    chosen = [one for one in letters if one[1].letter_id in letter_ids]
    missing = set(letter_ids) - {letter.letter_id for _, letter in chosen}
    if missing:
        raise NotFound(f"no dead letter {', '.join(sorted(missing))}; `events dead list` shows what there is")
    return chosen


def _kind(letter: DeadLetter) -> str:
    return letter.fields.get(b"type", b"?").decode(errors="replace")[:40]


def _shown(letter: DeadLetter) -> dict[str, str]:
    """Every field as text; an entry that carries a token shows its data without."""
    shown = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in letter.fields.items()}
    data = letter.fields.get(b"data", b"")
    if any(b'"' + name + b'"' in data for name in _SECRET):
        shown["data"] = f"({len(data)} bytes, not shown: they hold a token)"
    return shown


def _as_json(stream: str, letter: DeadLetter) -> dict[str, Any]:
    return {
        "letter": letter.letter_id,
        "on": stream,
        "reason": letter.reason,
        "message": letter.message,
        "stream": letter.stream,
        "group": letter.group,
        "entry": letter.entry_id,
        "failed": letter.failed,
        "crashed": letter.crashed,
        "time": letter.time,
        "fields": _shown(letter),
    }
