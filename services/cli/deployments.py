"""`cyroid-images deploy …` and `cyroid-images deployments …`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from events.task_group import TaskGroup
from services.cli.by_api import ApiRequest, by_api, deploy_request, get
from services.cli.command_group import complain, run, user
from services.cli.output import (
    LINE_SECONDS,
    json_flag,
    plain,
    print_json,
    print_page,
    print_table,
    progress,
    size,
    talk,
)

if TYPE_CHECKING:
    from events.messages import (
        DeploymentCancelRequested,
        DeploymentEnded,
        DeploymentRequested,
        DeploymentRetryRequested,
        ImageOutcome,
    )
    from services.cli.output import Progress
    from services.queries.deployments import DeploymentImageView, DeploymentView
    from services.resources import Resources

FAILED_STATUS = 5


@click.command()
@click.argument("range_id", metavar="RANGE")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE…")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the end, and show progress.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop waiting after so many seconds.",
)
@click.option("--id", "deployment_id", metavar="ID", help="The deployment's id; by default a new one.")
@click.option("--platform", metavar="OS/ARCH", help="Refuse images of another platform.")
@click.option("--engine-url", metavar="URL", help="The range's engine (tcp://…), for a range without an agent.")
@click.option("--priority", type=int, default=5, show_default=True, help="From 0 to 9; higher goes first.")
@json_flag
@click.pass_context
@by_api(deploy_request)
def deploy(context: click.Context, /, *, wait: bool, timeout: float | None, as_json: bool, **request: Any) -> None:
    """Deploy images to a range.

    The exit status is 0 when every image is ready there, 5 when not. Ctrl-C stops the waiting, not the deployment.

    \b
    Examples:
      cyroid-images deploy range-7 web:1.0 db:16
      cyroid-images deploy range-7 web:1.0 --no-wait
    """

    async def work(resources: Resources) -> tuple[DeploymentRequested, DeploymentEnded | None]:
        from services.commands.requests import ask_deployer, deployment

        message = deployment(**request, engine_networks=resources.settings.engine_networks)
        bus = await resources.bus()
        await ask_deployer(message, bus=bus, streams=resources.streams, source=resources.source("cli"), actor=user())
        talk(f"deployment {message.deployment_id}")
        if not wait:
            return message, None
        return message, await _wait(resources, message, timeout)

    asked, ended = run(context, work)
    if ended is None:
        if as_json:
            from services.commands.requests import DeploymentNotEnded

            print_json(DeploymentNotEnded(deployment_id=asked.deployment_id))
        else:
            click.echo(asked.deployment_id)
        context.exit(FAILED_STATUS if wait else 0)
    _print_end(ended, as_json)
    context.exit(0 if type(ended).__name__ == "DeploymentSucceeded" else FAILED_STATUS)


async def _wait(resources: Resources, request: DeploymentRequested, timeout: float | None) -> DeploymentEnded | None:
    """Wait for the end; None when the time was up."""
    from services.queries.progress import watch

    bus = await resources.bus()
    try:
        with progress() as shown:
            async with asyncio.timeout(timeout), TaskGroup() as group:
                patience = group.create_task(_say_who_is_missing(resources, request, shown))
                ended = await watch(
                    bus,
                    resources.streams,
                    request,
                    on_progress=lambda step: shown.show(
                        f"{step.kind} {step.reference}", step.phase, step.done_bytes, step.total_bytes
                    ),
                    on_note=lambda note: talk(plain(note)),
                )
                patience.cancel()
                return ended
    except TimeoutError:
        complain(
            f"not ended after {timeout:g} seconds; it goes on: cyroid-images deployments cancel {request.deployment_id}"
        )
        return None
    except asyncio.CancelledError:
        talk(f"it goes on without you; to stop it: cyroid-images deployments cancel {request.deployment_id}")
        raise


async def _say_who_is_missing(resources: Resources, request: DeploymentRequested, shown: Progress) -> None:
    """Report after a while that no deployer took the request, or that the range has no agent."""
    bus = await resources.bus()
    while True:
        await asyncio.sleep(LINE_SECONDS / 2)
        (alive,) = await bus.beats([resources.streams.alive(request.range_id)])
        statuses = await bus.groups([resources.streams.deployments])
        # Where Redis cannot tell the lag nothing is known against the deployer.
        taken = any(status.group == "deployer" and status.lag in (0, None) for status in statuses)
        if not taken:
            shown.show("deployment", "no deployer has taken it yet: is `cyroid-images serve deployer` running?")
        elif alive is None and request.engine_url is None:
            shown.show("deployment", f"range {request.range_id} has no agent that answers")
        else:
            shown.show("deployment", "under way")


@click.group()
def deployments() -> None:
    """List, inspect, cancel and retry deployments."""


@deployments.command("ls")
@click.option("-n", "--last", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@json_flag
@click.pass_context
@by_api(lambda last: get("deployments", limit=last))
def list_(context: click.Context, /, *, last: int, as_json: bool) -> None:
    """List the latest deployments. With their state, their duration, and the images that wait for a slot."""

    async def work(resources: Resources) -> list[DeploymentView]:
        from services.queries.deployments import latest_deployments

        return await latest_deployments(await resources.bus(), resources.streams, last)

    rows = run(context, work)
    if as_json:
        print_page(rows)
        return
    print_table(("DEPLOYMENT", "RANGE", "STATE", "SECONDS", "IMAGES"), [_summary(row) for row in rows])


@deployments.command()
@click.argument("deployment_id", metavar="DEPLOYMENT")
@json_flag
@click.pass_context
@by_api(lambda deployment_id: get("deployments", deployment_id))
def show(context: click.Context, /, *, deployment_id: str, as_json: bool) -> None:
    """Show one deployment: a line per image."""

    async def work(resources: Resources) -> DeploymentView:
        from services.queries.deployments import one_deployment

        return await one_deployment(await resources.bus(), resources.streams, deployment_id)

    row = run(context, work)
    if as_json:
        print_json(row)
        return
    print_table(
        ("IMAGE", "STATE", "HOW", "RECEIVED", "MANIFEST", "PUSHED BY", "WHY NOT"),
        [
            (
                image.reference,
                _state(image),
                image.how or "-",
                size(image.received_bytes),
                *_provenance(image),
                image.error.message if image.error else "-",
            )
            for image in row.images
        ],
    )
    error = f": {row.error.message}" if row.error else f": {row.reason}" if row.reason else ""
    talk(plain(f"{_state(row)} after {row.seconds:.1f} s, range {row.range_id}{error}"))


def _provenance(image: DeploymentImageView) -> tuple[str, str]:
    """Its manifest, and who had it pushed."""
    found = image.provenance
    if found is None:
        return "-", "-"
    who = " ".join(part for part in (found.actor, f"({found.source})" if found.source else "") if part)
    return f"{found.manifest_digest[:19]}{' signed' if found.signed else ''}", who or "-"


def _summary(row: DeploymentView) -> Sequence[str]:
    images = " ".join(f"{image.reference}={image.state}" for image in row.images)
    return (row.deployment_id, row.range_id, _state(row), f"{row.seconds:.1f}", images)


def _state(row: DeploymentView | DeploymentImageView) -> str:
    """The state with the place in the queue, of whole deployments and of single images."""
    place = row.queue_position
    return row.state if place is None else f"{row.state} (number {place} in the queue)"


@deployments.command()
@click.argument("deployment_id", metavar="DEPLOYMENT")
@click.option("--reason", default="", metavar="TEXT", help="Recorded with the deployment.")
@json_flag
@click.pass_context
@by_api(
    lambda deployment_id, reason: ApiRequest(
        method="POST", path=("deployments", deployment_id, "cancel"), body={"reason": reason} if reason else {}
    )
)
def cancel(context: click.Context, /, *, deployment_id: str, reason: str, as_json: bool) -> None:
    """Stop a deployment and the engine's work for it. Does not wait.

    \b
    Example:
      cyroid-images deployments cancel 01a208d7-4401-7b2f-a69d-6375c305a25b --reason "wrong range"
    """
    from services.commands.requests import cancelling

    _ask(context, cancelling(deployment_id, reason), as_json)


@deployments.command()
@click.argument("deployment_id", metavar="DEPLOYMENT")
@json_flag
@click.pass_context
@by_api(lambda deployment_id: ApiRequest(method="POST", path=("deployments", deployment_id, "retry"), body={}))
def retry(context: click.Context, /, *, deployment_id: str, as_json: bool) -> None:
    """Repeat what is missing of a failed or cancelled deployment. Does not wait."""
    from services.commands.requests import retrying

    _ask(context, retrying(deployment_id), as_json)


def _ask(context: click.Context, message: DeploymentCancelRequested | DeploymentRetryRequested, as_json: bool) -> None:
    async def work(resources: Resources) -> None:
        from services.commands.requests import ask_deployer
        from services.queries.deployments import one_deployment

        bus = await resources.bus()
        await one_deployment(bus, resources.streams, message.deployment_id)  # raises NotFound: a typo is told at once
        await ask_deployer(message, bus=bus, streams=resources.streams, source=resources.source("cli"), actor=user())

    run(context, work)
    talk("requested")
    if as_json:
        from services.commands.requests import DeploymentAsked

        print_json(DeploymentAsked(deployment_id=message.deployment_id))


def _print_end(ended: DeploymentEnded, as_json: bool) -> None:
    if as_json:
        print_json(ended)
        return
    print_table(("IMAGE", "HOW", "SENT", "LAYERS REUSED", "SECONDS"), [_row(image) for image in ended.images])
    for image in ended.images:
        if image.error is not None:
            about = "" if image.reference in image.error.message else f"{image.reference}: "
            complain(f"{about}{image.error.message} ({image.error.code})")
    error = getattr(ended, "error", None)
    if error is not None:
        complain(f"{error.message} ({error.code})")
    reason = getattr(ended, "reason", "")
    outcome = type(ended).__name__.removeprefix("Deployment").lower()
    talk(plain(f"{outcome} in {ended.seconds:.1f} s" + (f": {reason}" if reason else "")))


def _row(image: ImageOutcome) -> Sequence[str]:
    how = image.how or (image.error.code if image.error else "not done")
    return (
        image.reference,
        how,
        size(image.sent_bytes),
        f"{image.layers_reused} of {image.layers_total}",
        f"{image.seconds:.1f}",
    )
