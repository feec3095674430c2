"""`cyroid-images registry …`: storage figures, garbage collection, scrub, quarantine; retention and auto-push."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import click

from events.task_group import TaskGroup
from services.cli.by_api import by_api, get, post
from services.cli.command_group import complain, run
from services.cli.output import json_flag, print_json, print_table, progress, size, talk
from services.cli.quarantine import quarantine
from services.cli.serving_role import tell_if_unserved
from services.cli.store_rules import auto_push, retention

if TYPE_CHECKING:
    from events.messages import RegistryCollected
    from services.core.store.figures import StoreDetails, StoreFigures
    from services.core.store.growth import StoreGrowth
    from services.resources import Resources

FAILED_STATUS = 5
#: What `figures` shows, as a path of the API.
_FIGURES = {"images": ("details",), "layers": ("details",), "growth": ("growth",)}
_TIMEOUT = click.FloatRange(min=0, min_open=True)


@click.group()
def registry() -> None:
    """Show storage figures, collect garbage, scrub."""


for command in (quarantine, retention, auto_push):
    registry.add_command(command)


@registry.command()
@click.option("--images", "shown", flag_value="images", help="The images that take most, one by one.")
@click.option("--layers", "shown", flag_value="layers", help="The layers that save most by being shared.")
@click.option("--growth", "shown", flag_value="growth", help="How the store grew.")
@json_flag
@click.pass_context
@by_api(lambda shown: get("registry", "figures", *_FIGURES.get(shown, ())))
def figures(context: click.Context, /, *, shown: str | None, as_json: bool) -> None:
    """Show what the registry stores.

    As the last collection measured it.

    STORED counts every blob once; LOGICAL is what the tags would take if they shared nothing; UNIQUE would be freed if
    all tags of a repository were deleted (of an image: if its tag was).
    """

    async def work(resources: Resources) -> StoreFigures | StoreDetails | StoreGrowth | None:
        from services.core.store.figures import details_key, figures_key
        from services.core.store.growth import growth_key

        prefix, bus = resources.streams.prefix, await resources.bus()
        if shown in ("images", "layers"):
            return (await details_key(prefix).load(bus)).value
        if shown == "growth":
            return (await growth_key(prefix).load(bus)).value
        return (await figures_key(prefix).load(bus)).value

    found = run(context, work)
    if as_json:
        print_json(found)
    elif found is None:
        talk("nothing was measured yet: run `cyroid-images registry collect --dry-run`")
    else:
        _print_measured(found, shown)


def _print_measured(found: StoreFigures | StoreDetails | StoreGrowth, shown: str | None) -> None:
    from services.core.store.figures import StoreDetails
    from services.core.store.growth import StoreGrowth

    if isinstance(found, StoreGrowth):
        rows = [
            (f"{one.at:%Y-%m-%d %H:%M}", size(one.stored_bytes), size(one.logical_bytes), size(one.free_bytes))
            for one in found.samples
        ]
        print_table(("AT", "STORED", "LOGICAL", "FREE"), rows)
    elif isinstance(found, StoreDetails) and shown == "images":
        images = [
            (f"{one.repository}:{one.tag}", size(one.stored_bytes), size(one.unique_bytes), size(one.shared_bytes))
            for one in found.images
        ]
        print_table(("IMAGE", "STORED", "UNIQUE", "SHARED"), images)
    elif isinstance(found, StoreDetails):
        layers = [
            (one.digest, size(one.size_bytes), str(one.references), size(one.saved_bytes)) for one in found.layers
        ]
        print_table(("LAYER", "SIZE", "REFERENCES", "SAVED"), layers)
    else:
        _print_figures(found)


def _print_figures(found: StoreFigures) -> None:
    rows = [
        (row.repository, str(row.tags), size(row.logical_bytes), size(row.unique_bytes), size(row.shared_bytes))
        for row in found.by_repository
    ]
    print_table(("REPOSITORY", "TAGS", "LOGICAL", "UNIQUE", "SHARED"), rows)
    talk(
        f"{found.tags} tags store {size(found.stored_bytes)} (logical {size(found.logical_bytes)},"
        f" sharing saves {size(found.saved_bytes)}); {size(found.collectable_bytes)} unreferenced,"
        f" {size(found.quarantined_bytes)} in quarantine; {size(found.free_bytes)} free"
        f" (measured {found.at:%Y-%m-%d %H:%M} UTC)"
    )


@registry.command()
@click.option("--dry-run", is_flag=True, help="Say what would be set aside; change nothing.")
@click.option("--scrub", is_flag=True, help="Also re-hash all content, and repair what is damaged.")
@click.option("--now", is_flag=True, help="Free what was set aside ten minutes ago or earlier; do not wait a day.")
@click.option("--timeout", type=_TIMEOUT, metavar="SECONDS", help="Wait no longer than this.")
@json_flag
@click.pass_context
@by_api(lambda timeout, **chosen: post("registry", "collect", failed=lambda answer: bool(answer["damaged"]), **chosen))
def collect(
    context: click.Context, /, *, dry_run: bool, scrub: bool, now: bool, timeout: float | None, as_json: bool
) -> None:
    """Collect content that nothing references.

    Pulls and pushes go on meanwhile.

    What is collected is set aside first and freed after CYROID_COLLECT_KEEP_SECONDS. Ctrl-C stops the waiting, not the
    collection.

    \b
    Examples:
      cyroid-images registry collect --dry-run
      cyroid-images registry collect --scrub
    """

    async def work(resources: Resources) -> RegistryCollected | None:
        from events.messages import CollectRequested
        from services.commands.store import collect

        command = CollectRequested(dry_run=dry_run, scrub=scrub, keep_seconds=0.0 if now else None)
        bus, source = await resources.bus(), resources.source("cli")
        await tell_if_unserved(resources, "collector")
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), TaskGroup() as tasks:
                following = tasks.create_task(_follow(resources))
                ended = await collect(bus, resources.streams, command, source=source)
                following.cancel()
                return ended
        return None

    ended = run(context, work)
    if as_json:
        print_json(ended)
    if ended is None:
        complain("there is no answer yet; see whether the role collector runs: cyroid-images doctor")
        context.exit(FAILED_STATUS)
    if ended.error is not None:
        complain(ended.error.message)
        context.exit(FAILED_STATUS)
    if not as_json:
        _print_collected(ended)
    context.exit(FAILED_STATUS if ended.damaged else 0)


async def _follow(resources: Resources) -> None:
    from services.commands.store import collection_steps

    with progress() as shown:
        async with aclosing(collection_steps(await resources.bus(), resources.streams)) as steps:
            async for step in steps:
                shown.show("collection", step.phase, step.done, step.total)


def _print_collected(ended: RegistryCollected) -> None:
    if ended.dry_run:
        click.echo(f"{ended.candidates} blobs, {size(ended.candidate_bytes)}, would be set aside now")
    else:
        click.echo(
            f"{ended.quarantined} blobs set aside, {ended.restored} brought back,"
            f" {ended.removed} freed ({size(ended.freed_bytes)})"
        )
    for what in ended.damaged:
        complain(f"damaged: {what}")
