"""`cyroid-images hosts …`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from services.cli.by_api import by_api, delete, get
from services.cli.command_group import run
from services.cli.output import ago, json_flag, plain, print_json, print_page, print_table, size, talk

if TYPE_CHECKING:
    from services.queries.host_holdings import HoldingRow
    from services.queries.known_hosts import HostRow
    from services.resources import Resources


@click.group()
def hosts() -> None:
    """List and forget the hosts of an installation."""


@hosts.command("ls")
@json_flag
@click.pass_context
@by_api(lambda: get("hosts"))
def list_(context: click.Context, /, *, as_json: bool) -> None:
    """List hosts: whether each is there, its engine, its images and ranges, and its free disk.

    A host reports through its registry-pusher. Its id is CYROID_HOST_ID, or the id of its engine.
    """

    async def work(resources: Resources) -> list[HostRow]:
        from services.queries.known_hosts import known_hosts

        return await known_hosts(await resources.bus(), resources.streams)

    rows = run(context, work)
    if as_json:
        print_page(rows)
        return
    print_table(
        ("HOST", "STATE", "MACHINE", "ENGINE", "STORE", "IMAGES", "RANGES", "FREE", "SEEN"),
        [
            (
                row.host,
                row.state,
                row.machine,
                row.engine_version or "-",
                row.store or "-",
                f"{row.images} ({size(row.images_bytes)})",
                str(row.ranges),
                "-" if row.free_bytes is None else size(row.free_bytes),
                ago(row.seen_at),
            )
            for row in rows
        ],
    )
    for row in rows:
        if row.error:
            talk(plain(f"the engine of host {row.host} does not answer: {row.error}"))


@hosts.command()
@click.argument("host", metavar="HOST")
@click.option("--search", "text", default="", metavar="TEXT", help="Only images with this in their names.")
@json_flag
@click.pass_context
@by_api(lambda host, text: get("hosts", host, "images", q=text))
def images(context: click.Context, /, *, host: str, text: str, as_json: bool) -> None:
    """List the images that a host holds, and whether the registry has them.

    `images push --host HOST` pushes one from there.

    \b
    Examples:
      cyroid-images hosts images host-2
      cyroid-images hosts images host-2 --search training/
    """

    async def work(resources: Resources) -> list[HoldingRow]:
        from services.queries.host_holdings import holdings

        bus, after = await resources.bus(), ""
        found: list[HoldingRow] = []
        while True:
            page = await holdings(bus, resources.streams, host, text=text, after=after, limit=1000)
            found += page.items
            if page.next is None:
                return found
            after = page.next

    rows = run(context, work)
    if as_json:
        print_page(rows)
        return
    print_table(
        ("IMAGE", "IMAGE ID", "SIZE", "REGISTRY", "ANNOUNCED"),
        [
            (
                row.reference,
                (row.image_id or row.local_id).removeprefix("sha256:")[:12],
                size(row.size_bytes),
                row.registry,
                ago(row.announced_at) if row.announced_at else "-",
            )
            for row in rows
        ],
    )


@hosts.command()
@click.argument("host", metavar="HOST")
@click.option("--force", is_flag=True, help="Even while it is there, and reports again.")
@json_flag
@click.pass_context
@by_api(lambda host, force: delete("hosts", host, force=force, answered={"host": host}))
def forget(context: click.Context, /, *, host: str, force: bool, as_json: bool) -> None:
    """Forget a host that no longer exists, and which images it held.

    \b
    Examples:
      cyroid-images hosts forget host-2
    """

    async def work(resources: Resources) -> None:
        from services.commands.forget_host import forget_host

        await forget_host(await resources.bus(), resources.streams, host, force=force)

    run(context, work)
    if as_json:
        print_json({"host": host})
    talk(f"host {host} is forgotten")
