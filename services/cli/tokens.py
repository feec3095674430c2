"""`cyroid-images tokens create`: a token for the HTTP API."""

from __future__ import annotations

from pathlib import Path

import click

from services.cli.output import json_flag, print_json, talk


@click.group()
def tokens() -> None:
    """Make tokens for the HTTP API (CYROID_API_AUTH=token)."""


@tokens.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator", "admin"]),
    default="viewer",
    show_default=True,
    help="viewer reads; operator also pushes, deploys and forgets; admin may do everything.",
)
@click.option(
    "--file", "path", type=click.Path(path_type=Path), help="Add its line to this file, which is CYROID_API_TOKENS."
)
@json_flag
def create(*, name: str, role: str, path: Path | None, as_json: bool) -> None:
    """Make a token. It is printed once; the file has its hash alone.

    The API reads the file again when it changes: a line that is taken out ends that token.

    \b
    Examples:
      cyroid-images tokens create eva --role operator --file /etc/cyroid/api_tokens
    """
    from services.commands.tokens import add_token, new_token

    made = new_token(name, role)
    if path is not None:
        add_token(path, made)
    if as_json:
        print_json(made)
        return
    click.echo(made.token)
    talk(f"its line in {path}: {made.line}" if path else f"add this line to the file of tokens: {made.line}")
