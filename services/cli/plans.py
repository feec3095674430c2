"""`cyroid-images deployments plan …` and `cyroid-images plans …`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from services.cli.by_api import by_api, get, post
from services.cli.command_group import complain, run, user
from services.cli.output import json_flag, plain, print_json, print_page, print_table, talk

if TYPE_CHECKING:
    from services.queries.plans import PlanView
    from services.resources import Resources


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE…")
@click.option(
    "--range", "range_ids", multiple=True, metavar="RANGE", help="A range that will need them; may be repeated."
)
@click.option("--id", "plan_id", metavar="ID", help="The plan's id; by default a new one.")
@click.option("--platform", metavar="OS/ARCH", help="For images of several platforms.")
@json_flag
@click.pass_context
@by_api(lambda **plan: post("plans", **plan))
def plan(context: click.Context, /, *, images: tuple[str, ...], as_json: bool, **more: Any) -> None:
    """Announce images that will be needed.

    They go to the registry now, and to those of the ranges that are up.

    A range that is away gets its deployment when its agent comes up. `plans show` shows its progress.

    \b
    Example:
      cyroid-images deployments plan web:1.0 db:16 --range range-7 --range range-8
    """

    async def work(resources: Resources) -> str:
        from services.commands.requests import ask_deployer, planning

        message = planning(images, **more)
        await ask_deployer(
            message, bus=await resources.bus(), streams=resources.streams, source=resources.source("cli"), actor=user()
        )
        return message.plan_id

    plan_id = run(context, work)
    talk(f"announced; to see its progress: cyroid-images plans show {plan_id}")
    if as_json:
        from services.commands.requests import PlanAsked

        print_json(PlanAsked(plan_id=plan_id))
    else:
        click.echo(plan_id)


@click.group()
def plans() -> None:
    """List and inspect plans (`deployments plan` makes them)."""


@plans.command("ls")
@click.option("-n", "--last", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@json_flag
@click.pass_context
@by_api(lambda last: get("plans", limit=last))
def list_(context: click.Context, /, *, last: int, as_json: bool) -> None:
    """List the latest plans and their progress."""

    async def work(resources: Resources) -> list[PlanView]:
        from services.queries.plans import latest_plans

        return await latest_plans(await resources.bus(), resources.streams, last)

    rows = run(context, work)
    if as_json:
        print_page(rows)
        return
    print_table(("PLAN", "STATE", "IN THE REGISTRY", "RANGES READY", "IMAGES"), [_summary(row) for row in rows])


@plans.command()
@click.argument("plan_id", metavar="PLAN")
@json_flag
@click.pass_context
@by_api(lambda plan_id: get("plans", plan_id))
def show(context: click.Context, /, *, plan_id: str, as_json: bool) -> None:
    """Show one plan. One line per image in the registry, one per range, and what to do about what is missing."""

    async def work(resources: Resources) -> PlanView:
        from services.queries.plans import one_plan

        return await one_plan(await resources.bus(), resources.streams, plan_id)

    row = run(context, work)
    if as_json:
        print_json(row)
        return
    print_table(("IMAGE", "REGISTRY"), [(image.reference, image.registry) for image in row.images])
    if row.ranges:
        click.echo()
        many = len(row.images)
        print_table(
            ("RANGE", "STATE", "IMAGES READY", "DEPLOYMENT"),
            [(one.range_id, one.state, f"{one.ready} of {many}", one.deployment_id or "-") for one in row.ranges],
        )
    talk(plain(f"{row.state}; ready in {_ready(row)} ranges" if row.ranges else row.state))
    _advise(row)


def _advise(row: PlanView) -> None:
    """Print what a person can do about what will not come by itself."""
    for image in row.images:
        if image.error is not None:
            why = image.error.message
            complain(f"{image.reference}: {why}; then: cyroid-images images push {image.reference}")
    states = [one.state for one in row.ranges]
    if "away" in states:
        talk(f"{states.count('away')} away: once they are up, plan the same again with --id {row.plan_id}")
    ended = [one.deployment_id for one in row.ranges if one.state in ("failed", "cancelled")]
    if ended:
        talk(f"{len(ended)} not brought there: cyroid-images deployments show {ended[0]}, then deployments retry")
    if row.state == "announced":
        talk("no deployer has taken it yet: is `cyroid-images serve deployer` running?")


def _summary(row: PlanView) -> Sequence[str]:
    there = sum(image.registry == "there" for image in row.images)
    names = " ".join(image.reference for image in row.images)
    return (row.plan_id, row.state, f"{there} of {len(row.images)}", _ready(row), names)


def _ready(row: PlanView) -> str:
    states = [one.state for one in row.ranges]
    return f"{states.count('succeeded')} of {len(states)}" if states else "-"
