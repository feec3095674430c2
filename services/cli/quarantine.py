"""`cyroid-images registry quarantine`: what a collection set aside, and bringing it back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from services.cli.by_api import by_api, get, post
from services.cli.command_group import complain, run
from services.cli.output import json_flag, print_json, print_table, size, talk
from services.cli.serving_role import tell_if_unserved

if TYPE_CHECKING:
    from services.commands.store import Restored
    from services.core.store.quarantine import Quarantine
    from services.resources import Resources

FAILED_STATUS = 5
_RESTORE = ("registry", "quarantine", "restore")


@click.group()
def quarantine() -> None:
    """Show and restore what was set aside."""


@quarantine.command("ls")
@json_flag
@click.pass_context
@by_api(lambda: get("registry", "quarantine"))
def list_(context: click.Context, /, *, as_json: bool) -> None:
    """List what is in quarantine.

    The first to be freed is at the top; a manifest is shown with its repositories.
    """

    async def work(resources: Resources) -> Quarantine | None:
        from services.core.store.quarantine import quarantine_key

        return (await quarantine_key(resources.streams.prefix).load(await resources.bus())).value

    found = run(context, work)
    if as_json:
        print_json(found)
    elif found is None:
        talk("there was no collection yet")
    else:
        rows = [
            (one.digest, size(one.size_bytes), f"{one.until:%Y-%m-%d %H:%M}", ", ".join(one.repositories))
            for one in found.listed
        ]
        print_table(("DIGEST", "SIZE", "FREED AFTER", "MANIFEST OF"), rows)
        talk(f"{found.blobs} blobs, {size(found.size_bytes)}, as of {found.at:%Y-%m-%d %H:%M} UTC")


@quarantine.command()
@click.argument("digests", nargs=-1, required=True, metavar="DIGEST…")
@json_flag
@click.pass_context
@by_api(lambda digests: post(*_RESTORE, failed=lambda answer: bool(answer["missing"]), digests=digests))
def restore(context: click.Context, /, *, digests: Sequence[str], as_json: bool) -> None:
    """Bring blobs back.

    A manifest comes with all that it names, so that it can be pulled by digest and tagged again. What nothing
    references is set aside again once it is older than CYROID_COLLECT_GRACE_SECONDS.
    """

    async def work(resources: Resources) -> Restored:
        import msgspec

        from events.messages import RestoreRequested
        from services.commands.request_reply import RequestReplyClient
        from services.commands.store import restoration
        from services.errors import BadInput

        try:
            command = msgspec.convert({"digests": list(digests)}, RestoreRequested)
        except msgspec.ValidationError as problem:
            raise BadInput("a digest is written as sha256: and 64 hexadecimal digits") from problem
        bus, source = await resources.bus(), resources.source("cli")
        await tell_if_unserved(resources, "collector")
        return await restoration(RequestReplyClient(bus=bus, streams=resources.streams, source=source), command)

    answer = run(context, work)
    if as_json:
        print_json(answer)
    elif not answer.ended:
        complain("there is no answer yet; see whether the role collector runs: cyroid-images doctor")
    else:
        click.echo(f"{len(answer.restored)} blobs are back")
        for digest in answer.missing:
            complain(f"{digest} is neither in quarantine nor there")
    context.exit(FAILED_STATUS if answer.missing or not answer.ended else 0)
