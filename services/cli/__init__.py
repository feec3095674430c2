"""The command line: `cyroid-images NOUN VERB`, a module or folder per noun.

Data goes to stdout, messages to stderr, so that output can be piped. Every flag that equals a setting has that
setting's variable beside it. Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import click

from services.cli.api import api
from services.cli.bundle import bundle
from services.cli.command_group import CommandGroup, Invocation
from services.cli.completion import completion
from services.cli.deletion import remove
from services.cli.deployments import deploy, deployments
from services.cli.doctor import doctor
from services.cli.events import events
from services.cli.host_images import adopt, fetch, reclaim, reclaim_rules
from services.cli.hosts import hosts
from services.cli.images import images
from services.cli.plans import plan, plans
from services.cli.priority import priority
from services.cli.ranges import ranges
from services.cli.registry import registry
from services.cli.serve import serve
from services.cli.settings import settings
from services.cli.tokens import tokens
from services.cli.top import top
from services.cli.verify import verify

EPILOG = """\b
Exit status: 0 done · 1 unexpected, or doctor found something · 2 bad input or usage · 4 a dependency is unavailable ·
5 a transfer or deployment failed, or verify found something · 6 a disk is full · 7 a role failed · 130 Ctrl-C
"""


@click.group(
    cls=CommandGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option("--redis-url", metavar="URL", help="Where the bus lives.  [CYROID_REDIS_URL]")
@click.option("--key-prefix", metavar="TEXT", help="What every key in Redis begins with.  [CYROID_KEY_PREFIX]")
@click.option("--host-engine-url", metavar="URL", help="The host's engine.  [CYROID_HOST_ENGINE_URL]")
@click.option("--registry-url", metavar="URL", help="The registry, as this side reaches it.  [CYROID_REGISTRY_URL]")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [CYROID_LOG_LEVEL]")
@click.option("--log-format", metavar="FORMAT", help="json, console or auto.  [CYROID_LOG_FORMAT]")
@click.version_option(package_name="cyroid-images", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context, /, **flags: str | None) -> None:
    """Brings Docker images from the host's engine to the engines of cyber ranges.

    \b
    Examples:
      cyroid-images serve all                        run the host's side
      cyroid-images images build . -t web:1.0        build, and into the registry
      cyroid-images deploy range-7 web:1.0           bring it to a range and wait
      cyroid-images events tail                      watch what happens
      cyroid-images top                              how far each range is
      cyroid-images doctor                           what is wrong here?
    """
    context.obj = Invocation(flags=flags, adapters=context.obj)


for _command in (remove, adopt, reclaim, fetch):
    images.add_command(_command)
registry.add_command(reclaim_rules)
for _command in (plan, priority):
    deployments.add_command(_command)
for command in (
    serve,
    images,
    registry,
    bundle,
    deploy,
    deployments,
    plans,
    verify,
    hosts,
    ranges,
    events,
    tokens,
    doctor,
    settings,
    api,
    top,
    completion,
):
    main.add_command(command)
