"""`cyroid-images doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from services.cli.by_api import ApiRequest, by_api
from services.cli.command_group import colour, run
from services.cli.output import json_flag, plain, print_page

if TYPE_CHECKING:
    from services.doctor.findings import Finding
    from services.resources import Resources

_COLOURS = {"ok": "green", "wrong": "red", "note": "yellow"}


@click.command()
@json_flag
@click.pass_context
@by_api(lambda: ApiRequest(path=("doctor",), failed=lambda report: not report["well"], failed_status=1))
def doctor(context: click.Context, /, *, as_json: bool) -> None:
    """Check all dependencies of the services.

    One line for each: its state, what is wrong, and what to do. The exit status is 1 if anything is wrong.
    """

    async def work(resources: Resources) -> list[Finding]:
        from services.doctor.checks import Checks
        from services.doctor.replication import replication_of

        return await Checks(
            resources.settings,
            bus=resources.bus,
            concerns=resources.concerns,
            engine=resources.host_engine,
            registry=resources.registry,
            connections=resources.connections,
            replication=lambda: replication_of(resources),
        ).run()

    findings = run(context, work)
    if as_json:
        print_page(findings)
    else:
        for one in findings:
            state = click.style(f"{one.state:<5}", fg=_COLOURS[one.state])
            advice = f" → {one.advice}" if one.advice else ""
            click.echo(f"{state} {plain(f'{one.what}: {one.found}{advice}')}", color=colour())
    context.exit(1 if any(one.state == "wrong" for one in findings) else 0)
