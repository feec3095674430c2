"""`cyroid-images settings`: every variable, what it is for and what it is now."""

from __future__ import annotations

import click

from services.cli.by_api import by_api, get
from services.cli.command_group import read_settings
from services.cli.output import json_flag, print_json


@click.command()
@json_flag
@click.pass_context
@by_api(lambda: get("settings"))
def settings(context: click.Context, /, *, as_json: bool) -> None:
    """List all settings: variable, value here (secrets masked), meaning.

    With --api, the values of the API's process.
    """
    from services.queries.settings import setting_views

    views = setting_views(read_settings(context))
    if as_json:
        print_json(views)
        return
    for one in views:
        click.echo(f"{one.variable}={one.value}{'   (not the default)' if one.changed else ''}")
        click.echo(f"    {one.meaning}")
