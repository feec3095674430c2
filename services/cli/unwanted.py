"""`cyroid-images ranges unwanted` and `cyroid-images images unwanted`: what is there and no deployment wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from services.cli.door import run
from services.cli.output import ago, json_flag, plain, print_json, print_table, size, talk

if TYPE_CHECKING:
    from services.core.holdings import RegistryEntry
    from services.parts import Parts
    from services.unwanted import RangeReport


@click.command("unwanted")
@click.argument("range_id", metavar="[RANGE]", required=False)
@json_flag
@click.pass_context
def in_ranges(context: click.Context, /, *, range_id: str | None, as_json: bool) -> None:
    """List images on the engines of ranges that no deployment wants: of one range, or of all.

    Somebody brought them by hand, or a rebuilt image left them behind without a name, or they were forgotten. Nothing
    is removed by itself. An agent looks about once a minute; of a range that is away it is the last word.

    \b
    Examples:
      cyroid-images ranges unwanted
      cyroid-images ranges unwanted range-7
    """

    async def work(parts: Parts) -> list[RangeReport]:
        from services import unwanted

        bus = await parts.bus()
        if range_id is not None:
            return [await unwanted.in_range(bus, parts.streams, range_id)]
        return [report for report in await unwanted.in_ranges(bus, parts.streams) if report.images]

    reports = run(context, work)
    if as_json:
        print_json({"items": [report.told() for report in reports]})
        return
    rows = [row for report in reports for row in _rows(report)]
    if rows:
        print_table(("RANGE", "IMAGE", "IMAGE ID", "SIZE", "NOTE"), rows)
    for report in reports:
        if not report.alive and report.as_of is not None:
            talk(plain(f"{report.range_id} is away: as its agent said {ago(report.as_of)}"))
    if not rows:
        talk("nothing: every image there is wanted")
        return
    example = range_id or reports[0].range_id
    talk(
        f"to take one away: `docker rmi IMAGE` on the range's engine; to keep it: cyroid-images deploy {example} IMAGE"
    )


def _rows(report: RangeReport) -> Iterator[Sequence[str]]:
    for image in report.images:
        ident = image.image_id or image.local_id
        if not image.references:
            note = "no name: left by one that was rebuilt, or untagged"
        else:
            note = "another name of one that is wanted: takes no room" if image.shared else ""
        yield (
            report.range_id,
            " ".join(image.references) or "<none>",
            ident.removeprefix("sha256:")[:12] if ident else "-",
            size(image.size_bytes) if image.size_bytes else "-",
            note,
        )


@click.command("unwanted")
@json_flag
@click.pass_context
def in_registry(context: click.Context, /, *, as_json: bool) -> None:
    """List images in the registry that no range has or should have, and that no plan names."""

    async def work(parts: Parts) -> Sequence[RegistryEntry]:
        from services import unwanted

        return await unwanted.in_registry(await parts.bus(), parts.streams)

    entries = run(context, work)
    if as_json:
        print_json({"items": entries})
        return
    if not entries:
        talk("nothing: every image there is in a range, or meant for one")
        return
    print_table(
        ("IMAGE", "IMAGE ID", "SIZE", "PUSHED"),
        [(one.reference, one.image_id[7:19], size(one.size_bytes), ago(one.pushed_at)) for one in entries],
    )
    talk("sizes count layers that other images share; they stay in the registry until somebody deletes them there")
