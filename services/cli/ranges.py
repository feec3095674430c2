"""`cyroid-images ranges …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from services.cli.door import run
from services.cli.output import json_flag, print_json, print_table, talk

if TYPE_CHECKING:
    from services.parts import Parts


@click.group()
def ranges() -> None:
    """Look at the ranges that images are brought to, and forget those that are no more."""


@ranges.command("ls")
@json_flag
@click.pass_context
def list_(context: click.Context, /, *, as_json: bool) -> None:
    """List every range that ever spoke, and whether its agent is alive."""

    async def work(parts: Parts) -> list[dict[str, Any]]:
        from services.inventory import known_ranges

        return await known_ranges(await parts.bus(), parts.streams)

    rows = run(context, work)
    if as_json:
        print_json({"items": rows})
        return
    print_table(
        ("RANGE", "AGENT", "ENGINE", "LAST BEAT"),
        [(row["range_id"], row["agent"], row.get("engine_version", ""), row.get("at", "")) for row in rows],
    )


@ranges.command()
@click.argument("range_id", metavar="RANGE")
@click.option("--force", is_flag=True, help="Also while its agent is alive; it announces the range again.")
@click.pass_context
def forget(context: click.Context, /, *, range_id: str, force: bool) -> None:
    """Forget a range that is no more: what is known of it and what it should have.

    \b
    Examples:
      cyroid-images ranges forget range-7
    """

    async def work(parts: Parts) -> None:
        from services.forgetting import forget_range

        await forget_range(await parts.bus(), parts.streams, range_id, force=force)

    run(context, work)
    talk(f"range {range_id} is forgotten")
