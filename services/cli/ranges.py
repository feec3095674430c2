"""`cyroid-images ranges …`."""

from __future__ import annotations

from collections.abc import Sequence
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
@click.argument("images", nargs=-1, metavar="[IMAGE…]")
@click.option("--force", is_flag=True, help="Also while its agent is alive; it announces the range again.")
@json_flag
@click.pass_context
def forget(context: click.Context, /, *, range_id: str, images: Sequence[str], force: bool, as_json: bool) -> None:
    """Forget a range that is no more, or images that it is not meant to have any more.

    What was deployed to a range is brought back if it gets lost there, until it is forgotten. Forgetting an image does
    not remove it from the range's engine.

    \b
    Examples:
      cyroid-images ranges forget range-7
      cyroid-images ranges forget range-7 training/web:1.0
    """

    async def work(parts: Parts) -> list[str]:
        from services.forgetting import forget_images, forget_range

        if images:
            return await forget_images(await parts.bus(), parts.streams, range_id, images)
        await forget_range(await parts.bus(), parts.streams, range_id, force=force)
        return []

    forgotten = run(context, work)
    if as_json:
        print_json({"range_id": range_id, "images": forgotten})
    talk(
        f"range {range_id} is not meant to have {', '.join(forgotten)}" if images else f"range {range_id} is forgotten"
    )
