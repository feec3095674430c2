"""`cyroid-images events dead`: list, show, redrive and drop dead letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from services.cli.command_group import run
from services.cli.output import json_flag, plain, print_json, print_page, print_table

if TYPE_CHECKING:
    from events.lease import Bus
    from services.queries.dead_letters import DeadLettersDone, DeadLetterView
    from services.resources import Resources


F = TypeVar("F", bound=Callable[..., Any])


def _choice(command: F) -> F:
    """Which letters a command changes, and whether it does so or only says it."""
    for option in (
        click.option("--yes", is_flag=True, help="Do it. Without this, only say what would be done."),
        click.option("--all", "every", is_flag=True, help="All dead letters."),
        click.argument("letter_ids", nargs=-1, metavar="[LETTER]..."),
    ):
        command = option(command)
    return command


@click.group()
def dead() -> None:
    """List, show, redrive or drop dead letters."""


@dead.command(name="list")
@json_flag
@click.pass_context
def list_letters(context: click.Context, /, *, as_json: bool) -> None:
    """List all dead letters, oldest first.

    \b
    Example:
      cyroid-images events dead list
    """

    async def work(resources: Resources) -> list[DeadLetterView]:
        from services.queries.dead_letters import all_dead_letters

        return await all_dead_letters(await resources.bus(), resources.streams)

    letters = run(context, work)
    if as_json:
        print_page(letters)
        return
    rows = [(one.letter, one.time, one.type, one.group, one.reason, one.message[:80]) for one in letters]
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

    async def work(resources: Resources) -> DeadLetterView:
        from services.queries.dead_letters import chosen_dead_letters

        (letter,) = await chosen_dead_letters(await resources.bus(), resources.streams, [letter_id])
        return letter

    letter = run(context, work)
    if as_json:
        print_json(letter)
        return
    click.echo(plain(f"{letter.letter} on {letter.on}, {letter.time}"))
    click.echo(plain(f"  {letter.group} gave it up: {letter.reason}: {letter.message}"))
    click.echo(f"  it was {letter.entry} on {letter.stream}; failed {letter.failed}, crashed {letter.crashed} times")
    for name, value in letter.fields.items():
        click.echo(plain(f"  {name}: {value}"))


@dead.command()
@_choice
@json_flag
@click.pass_context
def redrive(context: click.Context, /, *, letter_ids: Sequence[str], every: bool, yes: bool, as_json: bool) -> None:
    """Publish dead letters to their streams again.

    Without --yes it only says what it would do.

    Their group handles them as if for the first time; groups that have handled the entry do not get it again.

    \b
    Examples:
      cyroid-images events dead redrive 1795442944833-0
      cyroid-images events dead redrive --all --yes
    """
    _each(context, letter_ids, every=every, yes=yes, as_json=as_json, verb="redrive", act=_redrive)


@dead.command()
@_choice
@json_flag
@click.pass_context
def drop(context: click.Context, /, *, letter_ids: Sequence[str], every: bool, yes: bool, as_json: bool) -> None:
    """Delete dead letters.

    Without --yes it only says what it would do.

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
        raise click.UsageError("give the ids of dead letters, or --all")

    async def work(resources: Resources) -> DeadLettersDone:
        from services.queries.dead_letters import (
            DeadLetterDone,
            DeadLettersDone,
            all_dead_letters,
            chosen_dead_letters,
        )

        bus, streams = await resources.bus(), resources.streams
        letters = await (all_dead_letters(bus, streams) if every else chosen_dead_letters(bus, streams, letter_ids))
        items = [
            DeadLetterDone(letter=one.letter, to=one.stream, done=yes and await act(bus, one.on, one.letter))
            for one in letters
        ]
        return DeadLettersDone(items=items, dry_run=not yes)

    done = run(context, work)
    if as_json:
        print_json(done)
        return
    for one in done.items:
        state = "done" if one.done else "gone meanwhile" if yes else "would be done; add --yes"
        click.echo(f"{verb} {one.letter} (of {one.to}): {state}")
