"""`cyroid-images bundle create|load`: images for hosts without a network."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from services.cli.command_group import run
from services.cli.output import json_flag, print_page, size, talk

if TYPE_CHECKING:
    from events.messages import ImagePushed
    from services.core.images.bundles import BundleList
    from services.resources import Resources


@click.group()
def bundle() -> None:
    """Carry images to hosts without a network."""


@bundle.command()
@click.argument("references", nargs=-1, required=True, metavar="IMAGE…")
@click.option(
    "--since",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="LIST",
    help="Leave out what this list of an earlier bundle has.",
)
@click.option(
    "--list", "list_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the list for the next --since."
)
@click.pass_context
def create(context: click.Context, /, *, references: Sequence[str], since: Path | None, list_file: Path | None) -> None:
    """Write images of the registry to standard output.

    It is an OCI layout in a tar, which other tools read as well. With --since it holds only what is new.

    \b
    Examples:
      cyroid-images bundle create web:1.0 db:2 --list first.json > first.tar
      cyroid-images bundle create web:1.1 --since first.json --list second.json > second.tar
    """
    from services.core.images.bundles import BundleList

    if sys.stdout.isatty():
        raise click.UsageError("a bundle is a tar: send standard output to a file")
    before = BundleList()
    if since is not None:
        with _opened(str(since)) as file:
            before = BundleList.parse(file.read())
    out = sys.stdout.buffer

    async def work(resources: Resources) -> BundleList:
        from services.content.bundle import create_bundle

        return await create_bundle(await resources.registry(), references, out, before)

    after = run(context, work)
    if list_file is not None:
        import msgspec

        list_file.write_bytes(msgspec.json.encode(after))
    talk(f"{len(after.blobs) - len(before.blobs)} blobs are in the bundle")


@bundle.command()
@click.argument("path", metavar="FILE")
@json_flag
@click.pass_context
def load(context: click.Context, /, *, path: str, as_json: bool) -> None:
    """Put the images of a bundle into the registry.

    FILE may be - for a file on standard input. What the registry has already is not sent, so a load that broke off goes
    on where it was. Each blob is checked by its digest.
    """

    async def work(resources: Resources) -> list[ImagePushed]:
        from services.commands.bundle import load_and_announce
        from services.content.bundle import BundleReader

        with _opened(path) as file:
            return await load_and_announce(
                BundleReader(file),
                registry=await resources.announcing_registry(),
                bus=await resources.bus(),
                streams=resources.streams,
                source=resources.source("bundle"),
            )

    loaded = run(context, work)
    if as_json:
        print_page(loaded)
        return
    for one in loaded:
        click.echo(f"{one.reference}: {size(one.sent_bytes)} sent, {size(one.reused_bytes)} were there")


def _opened(path: str) -> IO[bytes]:
    """Raises BadInput for a file that cannot be read."""
    from services.errors import BadInput

    try:
        return sys.stdin.buffer if path == "-" else Path(path).open("rb")
    except OSError as problem:
        raise BadInput(f"{path} cannot be read: {problem.strerror}") from problem
