"""`cyroid-images settings`: every variable, what it is for and what it is now."""

from __future__ import annotations

import click

from services.cli.door import read_settings
from services.cli.output import json_flag, print_json


@click.command()
@json_flag
@click.pass_context
def settings(context: click.Context, /, as_json: bool) -> None:
    """List every setting: its variable, its value here (secrets masked) and what it means."""
    import msgspec

    from services.core.secrets import shown
    from services.environment import documentation, expected, variable_of

    now = read_settings(context)
    documented = documentation()
    fields = msgspec.structs.fields(now)
    if as_json:
        print_json(
            [
                {
                    "variable": variable_of(field.name),
                    "value": shown(field, getattr(now, field.name)),
                    "default": field.default,
                    "expects": expected(field),
                    "meaning": documented[field.name],
                }
                for field in fields
            ]
        )
        return
    for field in fields:
        value = getattr(now, field.name)
        click.echo(
            f"{variable_of(field.name)}={shown(field, value)}{'' if value == field.default else '   (not the default)'}"
        )
        click.echo(f"    {documented[field.name]}")
