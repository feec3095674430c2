"""`cyroid-images api METHOD PATH`: everything the HTTP API does, from a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click

from events.malformed import MALFORMED
from services.cli.command_group import read_settings
from services.cli.output import json_flag, plain, print_json, print_table
from services.cli.remote import api_option, ask, full_url

_METHODS = ("get", "post", "delete")


@click.command("api")
@click.argument("method", type=click.Choice(_METHODS, case_sensitive=False))
@click.argument("path")
@click.argument("fields", nargs=-1, metavar="[NAME=VALUE…]")
@api_option
@json_flag
@click.pass_context
def api(
    context: click.Context, /, *, method: str, path: str, fields: Sequence[str], api_url: str | None, as_json: bool
) -> None:
    """Send one request to the HTTP API, and print its answer.

    PATH is what comes behind /api/v1/. NAME=VALUE is a parameter of a GET or DELETE, or a field of a POST's body; a
    NAME given twice, or written NAME[], is a list, and NAME:=JSON is no text.

    \b
    Examples:
      cyroid-images api get ranges agent=away
      cyroid-images api post registry/push reference=web:1.0
      cyroid-images api post deployments range_id=range-7 images[]=web:1.0 priority:=9 --api http://images:8070
    """
    url = full_url(api_url or f"http://{read_settings(context).api_listen}", path)
    parsed = parse_fields(fields)
    if method.lower() == "post":
        found = asyncio.run(ask("POST", url, body=parsed))
    else:
        query = {name: _word(value) for name, value in parsed.items()}
        found = asyncio.run(ask(method.upper(), url, query=query))
    show(found, as_json)


def parse_fields(fields: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE…` as an object. Raises click.UsageError."""
    import msgspec

    parsed: dict[str, Any] = {}
    for field in fields:
        name, equals, text = field.partition("=")
        value: Any = text
        if not equals or not name.removesuffix(":").removesuffix("[]"):
            raise click.UsageError(f"{field!r} is not NAME=VALUE")
        if name.endswith(":"):
            name = name[:-1]
            try:
                value = msgspec.json.decode(text)
            except MALFORMED as problem:
                raise click.UsageError(f"{name}: {text!r} is no JSON") from problem
        is_list = name.endswith("[]")
        name = name.removesuffix("[]")
        if is_list or name in parsed:
            before = parsed.get(name, [])
            parsed[name] = [*(before if isinstance(before, list) else [before]), value]
        else:
            parsed[name] = value
    return parsed


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def show(found: Any, as_json: bool) -> None:
    """Print an answer: a list as a table of its short fields, everything else line by line."""
    if as_json:
        print_json(found)
        return
    if isinstance(found, dict) and isinstance(found.get("items"), list):
        rows = found["items"]
        names = [name for name in (rows[0] if rows else {}) if not isinstance(rows[0][name], list | dict)]
        print_table([name.upper() for name in names], [[_cell(row.get(name)) for name in names] for row in rows])
        if found.get("next"):
            click.echo(f"more: cursor={found['next']}", err=True)
    elif isinstance(found, dict):
        for name, value in found.items():
            click.echo(f"{plain(name)}: {_cell(value)}")
    elif found is not None:
        click.echo(plain(str(found)))


def _cell(value: Any) -> str:
    import msgspec

    if value is None:
        return "-"
    return plain(value if isinstance(value, str) else msgspec.json.encode(value).decode())
