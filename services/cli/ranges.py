"""`cyroid-images ranges …`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from services.cli.by_api import ApiRequest, by_api, delete, get, post
from services.cli.command_group import alias, run
from services.cli.output import ago, json_flag, plain, print_json, print_page, print_table, size, talk

if TYPE_CHECKING:
    from services.core.ranges.range_claims import RangeClaim
    from services.queries.known_ranges import RangeView
    from services.queries.unreferenced import RangeUnreferenced
    from services.resources import Resources


@click.group()
def ranges() -> None:
    """List and forget ranges; report unreferenced images."""


@ranges.command("ls")
@json_flag
@click.pass_context
@by_api(lambda: get("ranges"))
def list_(context: click.Context, /, *, as_json: bool) -> None:
    """List ranges, and whether their agents are alive."""

    async def work(resources: Resources) -> list[RangeView]:
        from services.queries.known_ranges import known_ranges

        return await known_ranges(await resources.bus(), resources.streams)

    rows = run(context, work)
    if as_json:
        print_page(rows)
        return
    print_table(
        ("RANGE", "HOST", "AGENT", "ENGINE", "LAST BEAT"),
        [(row.range_id, row.host or "-", row.agent, row.engine_version, row.at) for row in rows],
    )
    for row in rows:
        if row.contested is not None:
            talk(plain(f"{row.contested.explain()}; its deployments wait until then"))


def _forget_requests(range_id: str, images: Sequence[str], force: bool) -> ApiRequest | list[ApiRequest]:
    if not images:
        return delete("ranges", range_id, force=force, answered={"range_id": range_id, "images": []})
    return [
        delete("ranges", range_id, "images", image, answered={"range_id": range_id, "images": [image]})
        for image in images
    ]


@ranges.command()
@click.argument("range_id", metavar="RANGE")
@click.argument("images", nargs=-1, metavar="[IMAGE…]")
@click.option("--force", is_flag=True, help="Even while its agent is alive, which announces the range again.")
@json_flag
@click.pass_context
@by_api(_forget_requests)
def forget(context: click.Context, /, *, range_id: str, images: Sequence[str], force: bool, as_json: bool) -> None:
    """Forget a range, or some of its desired images.

    What was deployed to a range is restored if it gets lost there, until it is forgotten. Forgetting an image does
    not remove it from the range's engine.

    \b
    Examples:
      cyroid-images ranges forget range-7
      cyroid-images ranges forget range-7 training/web:1.0
    """

    async def work(resources: Resources) -> list[str]:
        from services.commands.forget import forget_images, forget_range

        if images:
            return await forget_images(await resources.bus(), resources.streams, range_id, images)
        await forget_range(await resources.bus(), resources.streams, range_id, force=force)
        return []

    forgotten = run(context, work)
    if as_json:
        from services.commands.forget import Forgotten

        print_json(Forgotten(range_id=range_id, images=forgotten))
    talk(f"range {range_id}: {', '.join(forgotten)} no longer desired" if images else f"range {range_id} is forgotten")


@ranges.command()
@click.argument("range_id", metavar="RANGE")
@click.option("--host", metavar="HOST", help="For this host; without it for the one where the command runs.")
@json_flag
@click.pass_context
@by_api(lambda range_id, host: post("ranges", range_id, "claim", host=host))
def claim(context: click.Context, /, *, range_id: str, host: str | None, as_json: bool) -> None:
    """Claim a range's id for a host, before the range is made.

    An id that another host has is refused at once. `python -m deploy.stack.ranges add` does this first.

    \b
    Examples:
      cyroid-images ranges claim range-7
      cyroid-images ranges claim range-7 --host host-2
    """

    async def work(resources: Resources) -> RangeClaim:
        from services.commands.range_claims import claim_range

        mine = host or await resources.identity().get()
        now = resources.adapters.clock()
        return await claim_range(await resources.bus(), resources.streams.prefix, range_id, host=mine, now=now)

    claimed = run(context, work)
    if as_json:
        print_json(claimed)
    talk(f"range {claimed.range_id} is on host {claimed.host}")


@ranges.command()
@click.argument("range_id", metavar="RANGE")
@json_flag
@click.pass_context
@by_api(lambda range_id: delete("ranges", range_id, "claim", answered={"range_id": range_id}))
def release(context: click.Context, /, *, range_id: str, as_json: bool) -> None:
    """Let a range's id go, so that a range on another host can have it.

    The first host on which a range comes up claims its id. What the range should have stays, and is deployed to it on
    the other host.

    \b
    Examples:
      cyroid-images ranges release range-7
    """

    async def work(resources: Resources) -> None:
        from services.commands.range_claims import release_range

        await release_range(await resources.bus(), resources.streams.prefix, range_id)

    run(context, work)
    if as_json:
        print_json({"range_id": range_id})
    talk(f"range {range_id} may come up on any host")


@ranges.command()
@click.argument("range_id", metavar="[RANGE]", required=False)
@json_flag
@click.pass_context
@by_api(lambda range_id: get("ranges", range_id, "unwanted") if range_id else get("unwanted"))
def unreferenced(context: click.Context, /, *, range_id: str | None, as_json: bool) -> None:
    """List unreferenced images of ranges.

    They are on the engine of a range and in no deployment: brought by hand, left without a name by a rebuilt image, or
    forgotten. Nothing is removed automatically. An agent reports about once a minute; of an agent that does not answer
    the last report is shown. The command has a second name: `ranges unwanted`.

    \b
    Examples:
      cyroid-images ranges unreferenced
      cyroid-images ranges unreferenced range-7
    """

    async def work(resources: Resources) -> list[RangeUnreferenced]:
        from services.queries.unreferenced import in_range, in_ranges

        bus = await resources.bus()
        if range_id is not None:
            return [await in_range(bus, resources.streams, range_id)]
        return [report for report in await in_ranges(bus, resources.streams) if report.images]

    reports = run(context, work)
    if as_json:
        print_page(reports)
        return
    rows = [row for report in reports for row in _rows(report)]
    if rows:
        print_table(("RANGE", "IMAGE", "IMAGE ID", "SIZE", "NOTE"), rows)
    for report in reports:
        if report.agent != "alive" and report.as_of is not None:
            talk(plain(f"the agent of {report.range_id} does not answer: as it reported {ago(report.as_of)}"))
    if not rows:
        talk("nothing: every image there is desired")
        return
    example = range_id or reports[0].range_id
    talk(f"to remove one: `docker rmi IMAGE` on the range's engine; to keep it: cyroid-images deploy {example} IMAGE")
    nameless = [one.local_id or one.image_id for report in reports for one in report.images if not one.references]
    if nameless and nameless[0]:
        talk(plain(f"one without a name is removed by its id: `docker rmi {_short_id(nameless[0])}`"))


def _rows(report: RangeUnreferenced) -> Iterator[Sequence[str]]:
    for image in report.images:
        ident = image.local_id or image.image_id if not image.references else image.image_id or image.local_id
        if not image.references:
            note = "no name: left by one that was rebuilt, or untagged"
        else:
            note = "another name of a desired image: takes no space" if image.shared else ""
        yield (
            report.range_id,
            " ".join(image.references) or "<none>",
            _short_id(ident) if ident else "-",
            size(image.size_bytes) if image.size_bytes else "-",
            note,
        )


def _short_id(ident: str) -> str:
    return ident.removeprefix("sha256:")[:12]


ranges.add_command(alias(unreferenced, "unwanted"))
