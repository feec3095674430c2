"""`cyroid-images deployments priority`: which of the waiting deployments goes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from services.cli.by_api import by_api, post
from services.cli.command_group import run, user
from services.cli.output import json_flag, print_json, talk

if TYPE_CHECKING:
    from services.resources import Resources


@click.command()
@click.argument("deployment_id", metavar="DEPLOYMENT")
@click.argument("priority", type=click.IntRange(min=0, max=9))
@json_flag
@click.pass_context
@by_api(lambda deployment_id, priority: post("deployments", deployment_id, "priority", priority=priority))
def priority(context: click.Context, /, *, deployment_id: str, priority: int, as_json: bool) -> None:
    """Change the priority of a deployment that has not ended.

    PRIORITY is from 0 to 9; images of a higher one get the next free slots first. Transfers under way go on.

    \b
    Example:
      cyroid-images deployments priority 01a208d7-4401-7b2f-a69d-6375c305a25b 9
    """

    async def work(resources: Resources) -> None:
        from services.commands.priority import with_priority
        from services.commands.requests import ask_deployer

        bus, streams = await resources.bus(), resources.streams
        message = await with_priority(bus, streams, deployment_id, priority)
        await ask_deployer(message, bus=bus, streams=streams, source=resources.source("cli"), actor=user())

    run(context, work)
    talk("requested")
    if as_json:
        from services.commands.requests import DeploymentAsked

        print_json(DeploymentAsked(deployment_id=deployment_id))
