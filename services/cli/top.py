"""`cyroid-images top`: the class and its transfers, drawn again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from services.cli.command_group import run
from services.cli.output import json_flag, plain, print_json
from services.cli.remote import api_option, ask, full_url

if TYPE_CHECKING:
    from rich.table import Table

    from services.queries.class_view import ClassImage, ClassView
    from services.resources import Resources

Look = Callable[[], Awaitable["ClassView"]]
_STYLES = {"ready": "green", "failed": "red", "queued": "dim", "requested": "dim"}


@click.command()
@click.option("--image", default="", metavar="TEXT", help="Only images with this text in their name.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.5),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait between two looks.",
)
@click.option("--once", is_flag=True, help="Draw once and end.")
@api_option
@json_flag
@click.pass_context
def top(context: click.Context, /, *, image: str, every: float, once: bool, api_url: str | None, as_json: bool) -> None:
    """Show how far each range is, live, until Ctrl-C.

    \b
    Examples:
      cyroid-images top
      cyroid-images top --image web --api http://images:8070
    """
    if api_url:
        url = full_url(api_url, "class")
        asyncio.run(_draw(lambda: _remote(url, image), every, once=once or as_json, as_json=as_json))
        return

    async def work(resources: Resources) -> None:
        from services.queries.class_view import class_view

        bus = await resources.bus()
        await _draw(lambda: class_view(bus, resources.streams, image), every, once=once or as_json, as_json=as_json)

    run(context, work)


#: So many reasons are listed below the table.
REASONS = 10


async def _remote(url: str, image: str) -> ClassView:
    import msgspec

    from services.errors import BadInput
    from services.queries.class_view import ClassView

    try:
        return msgspec.convert(await ask("GET", url, query={"image": image}), ClassView)
    except msgspec.ValidationError as problem:
        raise BadInput(f"the API's answer is none of this version: {problem}") from problem


async def _draw(look: Look, every: float, *, once: bool, as_json: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    view = await look()
    if as_json:
        print_json(view)
        return
    console = Console()
    if once:
        console.print(drawn(view))
        return
    with Live(drawn(view), console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(every)
            live.update(drawn(await look()), refresh=True)


def drawn(view: ClassView) -> Table:
    """The class as a table; its title is the sentence that an instructor wants."""
    from rich.table import Table
    from rich.text import Text

    failed = f", {view.failed} failed" if view.failed else ""
    names = sorted({one.reference for each in view.ranges for one in each.images})
    table = Table(title=f"{view.ready} of {view.total} ranges ready{failed}", title_justify="left")
    table.add_column("range", no_wrap=True)
    for name in names:
        table.add_column(plain(name.removeprefix("docker.io/").removeprefix("library/")), overflow="fold")
    for each in view.ranges:
        cells = {one.reference: one for one in each.images}
        words = [(_words(cells[name]), cells[name].state) if name in cells else ("", "") for name in names]
        table.add_row(Text(each.range_id), *(Text(word, style=_STYLES.get(state, "cyan")) for word, state in words))
    reasons = [_reason(each.range_id, one) for each in view.ranges for one in each.images if one.error is not None]
    if reasons:
        left = [f"and {len(reasons) - REASONS} more"] if len(reasons) > REASONS else []
        table.caption = Text("\n".join([*reasons[:REASONS], *left]))
        table.caption_justify = "left"
    return table


def _reason(range_id: str, image: ClassImage) -> str:
    """Why an image is not in a range: a line below the table, where a cell would fold it."""
    message = image.error.message if image.error is not None else ""
    return plain(f"{range_id} {image.state}: {message}"[:300])


def _words(image: ClassImage) -> str:
    """A cell's text, without markup: it may come from a range."""
    if image.error is not None:
        return plain(f"{image.state} ({image.error.code})"[:60])
    if image.agent_away_since is not None:
        return f"{image.state}, agent away"
    if image.queue_position is not None:
        return f"{image.state}, number {image.queue_position}"
    return f"{image.state} ({image.how})" if image.how else image.state
