"""`cyroid-images doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from services.cli.door import colour, run
from services.cli.output import json_flag, plain, print_json

if TYPE_CHECKING:
    from services.doctor.findings import Finding
    from services.parts import Parts

_COLOURS = {"ok": "green", "wrong": "red", "note": "yellow"}


@click.command()
@json_flag
@click.pass_context
def doctor(context: click.Context, /, *, as_json: bool) -> None:
    """Look at everything the services stand on: a line each, what is wrong and what to do.

    The exit status is 1 if anything is wrong.
    """

    async def work(parts: Parts) -> list[Finding]:
        from services.doctor.checkup import Checkup

        return await Checkup(
            parts.settings, bus=parts.bus, concerns=parts.concerns, engine=parts.host_engine, registry=parts.registry
        ).run()

    findings = run(context, work)
    if as_json:
        print_json({"items": findings})
    else:
        for one in findings:
            state = click.style(f"{one.state:<5}", fg=_COLOURS[one.state])
            advice = f" → {one.advice}" if one.advice else ""
            click.echo(f"{state} {plain(f'{one.what}: {one.found}{advice}')}", color=colour())
    context.exit(1 if any(one.state == "wrong" for one in findings) else 0)
