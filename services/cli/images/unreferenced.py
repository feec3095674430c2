"""`cyroid-images images unreferenced`: images in the registry that no range and no plan refers to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from services.cli.by_api import by_api, get
from services.cli.command_group import run
from services.cli.output import ago, json_flag, print_page, print_table, size, talk

if TYPE_CHECKING:
    from services.core.images.read_model import RegistryEntry
    from services.resources import Resources


@click.command()
@json_flag
@click.pass_context
@by_api(lambda **options: get("registry", "unwanted"))
def unreferenced(context: click.Context, /, *, as_json: bool) -> None:
    """List unreferenced images in the registry. Those that no range has or should have, and that no plan names."""

    async def work(resources: Resources) -> Sequence[RegistryEntry]:
        from services.queries.unreferenced import in_registry

        return await in_registry(await resources.bus(), resources.streams)

    entries = run(context, work)
    if as_json:
        print_page(entries)
        return
    if not entries:
        talk("none: every image there is in a range, desired in one, or in a plan")
        return
    print_table(
        ("IMAGE", "IMAGE ID", "SIZE", "PUSHED"),
        [(one.reference, one.image_id[7:19], size(one.size_bytes), ago(one.pushed_at)) for one in entries],
    )
    talk("sizes count layers that other images share; they stay in the registry until somebody deletes them there")
