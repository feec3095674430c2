"""`cyroid-images events dead`: list, show, redrive and drop dead letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from services.cli.by_api import ApiRequest, Caller, by_api, get
from services.cli.command_group import run
from services.cli.output import json_flag, plain, print_json, print_page, print_table

if TYPE_CHECKING:
    from events.lease import Bus
    from services.queries.dead_letters import DeadLettersDone, DeadLetterView
    from services.resources import Resources


F = TypeVar("F", bound=Callable[..., Any])
#: So many letters the API takes in one request.
_AT_ONCE = 1000


def _request(verb: str) -> Callable[..., ApiRequest]:
    """Count the letters, and with --yes confirm that number, as often as the API takes a part of them."""

    def make(letter_ids: Sequence[str], every: bool, yes: bool) -> ApiRequest:
        _check(letter_ids, every=every)
        path, wanted = ("dead-letters", verb), {"letters": list(letter_ids)} if letter_ids else {}

        async def steps(call: Caller) -> Any:
            from services.errors import NotFound

            found = await call("POST", path, body=wanted)
            if found["matching"] < len(set(letter_ids)):
                raise NotFound("not all of these dead letters are there", hint="cyroid-images events dead list")
            done, now = 0, found["matching"]
            for more in range(-(-now // _AT_ONCE) if yes else 0):
                if more:
                    now = (await call("POST", path, body=wanted))["matching"]
                done += (await call("POST", path, body={**wanted, "confirm": now}))["done"]
            return {"matching": found["matching"], "done": done, "dry_run": not yes}

        return ApiRequest(steps=steps)

    return make


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
@by_api(lambda: get("dead-letters"))
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
@by_api(lambda letter_id: get("dead-letters", letter_id))
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
@by_api(_request("redrive"))
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
@by_api(_request("drop"))
def drop(context: click.Context, /, *, letter_ids: Sequence[str], every: bool, yes: bool, as_json: bool) -> None:
    """Delete dead letters.

    Without --yes it only says what it would do.

    \b
    Example:
      cyroid-images events dead drop 1795442944833-0 --yes
    """
    _each(context, letter_ids, every=every, yes=yes, as_json=as_json, verb="drop", act=_drop)


def _check(letter_ids: Sequence[str], *, every: bool) -> None:
    """Raises click.UsageError."""
    if bool(letter_ids) == every:
        raise click.UsageError("give the ids of dead letters, or --all")


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
    _check(letter_ids, every=every)

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
