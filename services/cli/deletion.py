"""`cyroid-images images rm`: deletion of tags and digests from the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from services.cli.by_api import NO_ANSWER, ApiRequest, by_api, delete
from services.cli.command_group import complain, run
from services.cli.output import json_flag, print_json, size
from services.cli.serving_role import tell_if_unserved

if TYPE_CHECKING:
    from events.messages import DeletionPlanned, ImageDeleted, ImageDeleteRefused
    from services.resources import Resources

    Answer = ImageDeleted | ImageDeleteRefused | DeletionPlanned | None

FAILED_STATUS = 5


def _requests(references: Sequence[str], dry_run: bool, force: bool, timeout: float) -> list[ApiRequest]:
    def failed(answer: dict[str, Any]) -> bool | str:
        return NO_ANSWER if not answer["ended"] else bool(answer["needed_by"]) and not force

    return [replace(delete("images", name, dry_run=dry_run, force=force), failed=failed) for name in references]


@click.command("rm")
@click.argument("references", nargs=-1, required=True, metavar="REFERENCE…")
@click.option("--dry-run", is_flag=True, help="Say what would go, who needs it and what it frees; delete nothing.")
@click.option("--force", is_flag=True, help="Even if a deployment, a plan or a range needs it.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="Wait no longer.",
)
@json_flag
@click.pass_context
@by_api(_requests)
def remove(
    context: click.Context, /, *, references: Sequence[str], dry_run: bool, force: bool, timeout: float, as_json: bool
) -> None:
    """Delete tags from the registry.

    NAME@DIGEST is every tag of that manifest. Their content is freed by a later collection, unless something else needs
    it. A dry run of what would be refused ends with status 5.

    \b
    Examples:
      cyroid-images images rm web:1.0 --dry-run
      cyroid-images images rm web:1.0 web:1.1 --force
    """

    async def work(resources: Resources) -> list[Answer]:
        await tell_if_unserved(resources, "collector")
        return [await _ask(resources, reference, dry_run, force, timeout) for reference in references]

    answers = run(context, work)
    if as_json:
        print_json({"items": answers})
    printed = [_print(*pair, force=force, quiet=as_json) for pair in zip(references, answers, strict=True)]
    context.exit(0 if all(printed) else FAILED_STATUS)


async def _ask(resources: Resources, reference: str, dry_run: bool, force: bool, timeout: float) -> Answer:
    from services.commands.store import delete_image, plan_deletion

    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            bus, source = await resources.bus(), resources.source("cli")
            if dry_run:
                return await plan_deletion(bus, resources.streams, reference, source=source)
            return await delete_image(bus, resources.streams, reference, source=source, force=force)
    return None


def _print(reference: str, answer: Answer, *, force: bool, quiet: bool) -> bool:
    """Whether it was done, or would be."""
    from events.messages import DeletionPlanned, ImageDeleted

    if isinstance(answer, DeletionPlanned):
        if not quiet:
            _print_plan(reference, answer)
        return force or not answer.needed_by
    if isinstance(answer, ImageDeleted):
        if not quiet:
            click.echo(f"{reference} is deleted; a collection will free {size(answer.freed_bytes)}")
        return True
    if answer is None:
        complain(f"{reference}: there is no answer yet; see whether the role collector runs: cyroid-images doctor")
    else:
        complain(answer.error.message)
    return False


def _print_plan(reference: str, plan: DeletionPlanned) -> None:
    click.echo(
        f"{reference} is {plan.manifest_digest}: deleting {', '.join(plan.tags)} frees {size(plan.freed_now_bytes)} now"
        f" and {size(plan.freed_later_bytes)} after a collection"
    )
    if plan.siblings:
        click.echo(f"  these tags name the same content and keep it: {', '.join(plan.siblings)}")
    if plan.held_by:
        click.echo(f"  ranges that have it and keep it: {', '.join(plan.held_by)}")
    if plan.needed_by:
        click.echo(f"  it is needed, so this takes --force: {', '.join(plan.needed_by)}")
