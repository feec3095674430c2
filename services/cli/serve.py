"""`cyroid-images serve ROLE…`."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from services.cli.door import read_settings


@click.command()
@click.argument("roles", nargs=-1, required=True, metavar="ROLE…|all")
@click.option("--range-id", metavar="ID", help="Which range the agent belongs to.  [CYROID_RANGE_ID]")
@click.option("--engine-url", metavar="URL", help="The range's engine, for the agent.  [CYROID_ENGINE_URL]")
@click.option("--api-listen", metavar="HOST:PORT", help="Where the HTTP API listens.  [CYROID_API_LISTEN]")
@click.option("--tar-listen", metavar="HOST:PORT", help="Where the tar server listens.  [CYROID_TAR_LISTEN]")
@click.pass_context
def serve(context: click.Context, /, roles: tuple[str, ...], **flags: Any) -> None:
    """Run one or more roles until SIGTERM or Ctrl-C.

    \b
    ROLE is one of:
      registry-pusher  brings images of the host's engine into the registry
      deployer         brings images to ranges
      tar-server       sends archives to ranges while the registry is away
      agent-pool       drives the engines of ranges that have no agent of their own
      tracker          keeps who has what, and copies ranges' progress to where all can read it
      api              answers over HTTP
      agent            in a range: does what the deployer says, on the range's engine
      all              everything but the agent

    The first signal lets work under way end (CYROID_DRAIN_SECONDS), a second one hands it back at once.

    \b
    Examples:
      cyroid-images serve all
      cyroid-images serve registry-pusher deployer
      CYROID_RANGE_ID=range-7 cyroid-images serve agent
    """
    from services import bootstrap, telemetry

    settings = read_settings(context, **flags)
    telemetry.set_up(level=settings.log_level, log_format=settings.log_format)
    asyncio.run(bootstrap.serve(settings, list(roles)))
