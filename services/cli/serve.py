"""`cyroid-images serve ROLE…`."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from services.cli.command_group import chosen_adapters, read_settings


@click.command()
@click.argument("roles", nargs=-1, required=True, metavar="ROLE…|all")
@click.option("--range-id", metavar="ID", help="Which range the agent belongs to.  [CYROID_RANGE_ID]")
@click.option("--engine-url", metavar="URL", help="The range's engine, for the agent.  [CYROID_ENGINE_URL]")
@click.option("--api-listen", metavar="HOST:PORT", help="Where the HTTP API listens.  [CYROID_API_LISTEN]")
@click.option("--tar-listen", metavar="HOST:PORT", help="Where the tar server listens.  [CYROID_TAR_LISTEN]")
@click.option("--operations-listen", metavar="HOST:PORT", help="Health and metrics.  [CYROID_OPERATIONS_LISTEN]")
@click.pass_context
def serve(context: click.Context, /, roles: tuple[str, ...], **flags: Any) -> None:
    """Run one or more roles until SIGTERM or Ctrl-C.

    \b
    ROLE is one of:
      registry-pusher  brings images of the host's engine into the registry
      deployer         brings images to ranges
      tar-server       sends archives to ranges while the registry is unavailable
      agent-pool       drives the engines of ranges that have no agent of their own
      range-gateway    connects the agents of ranges to Redis, checks and limits what they send
      layer-mounter    shows ranges the layers of their images as mounts, in place of sending them
      tracker          records which image is where, and relays the ranges' progress
      collector        deletes from the registry, collects its garbage (needs CYROID_REGISTRY_STORAGE, or
                       CYROID_COLLECT_BY_API)
      api              answers over HTTP
      agent            in a range: pulls, tags and loads images on its engine, and reports
      all              everything but range-gateway, layer-mounter and agent; collector where it has what it needs

    The first signal lets work under way end (CYROID_DRAIN_SECONDS), a second one releases it at once.

    \b
    Examples:
      cyroid-images serve all
      cyroid-images serve registry-pusher deployer
      CYROID_RANGE_ID=range-7 cyroid-images serve agent
    """
    from services import serving
    from services.runtime import telemetry

    settings = read_settings(context, **flags)
    telemetry.set_up(level=settings.log_level, log_format=settings.log_format)
    asyncio.run(serving.serve(settings, list(roles), adapters=chosen_adapters(context)))
