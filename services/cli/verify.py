"""`cyroid-images verify`: has a range what it should have?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from services.cli.door import run
from services.cli.output import ago, json_flag, print_json, print_table, talk

if TYPE_CHECKING:
    from services.parts import Parts
    from services.verifying import Verified

NOT_WELL_STATUS = 5


@click.command()
@click.argument("range_id", metavar="RANGE")
@click.option("--image", "references", multiple=True, metavar="REFERENCE", help="Only this one; may be given again.")
@click.option("--engine-url", metavar="URL", help="Ask the range's engine there, not the records of what it said.")
@json_flag
@click.pass_context
def verify(
    context: click.Context, /, *, range_id: str, references: Sequence[str], engine_url: str | None, as_json: bool
) -> None:
    """Compare the content that a range has with what it should have: what was deployed to it, or the images named.

    Without --engine-url it goes by what the range's agent said last; how old that is, is told. The exit status is 5
    if anything is missing, has other content, or is not known. What it has beyond is only noted.

    \b
    Examples:
      cyroid-images verify range-7
      cyroid-images verify range-7 --image web:1.0 --engine-url tcp://10.0.7.2:2375
    """

    async def work(parts: Parts) -> Verified:
        from services.verifying import Verifier

        verifier = Verifier(
            speaker=await parts.bus(),
            streams=parts.streams,
            engine=parts.host_engine,
            registry=parts.registry,
        )
        if engine_url is None:
            return await verifier.verify(range_id, references)
        async with parts.other_engine(parts.settings.engine_url) as engine:
            return await verifier.verify(range_id, references, asked=engine)

    result = run(context, work, **({"engine_url": engine_url} if engine_url else {}))
    if as_json:
        print_json(result.told(range_id))
    else:
        rows = [(one.reference, one.verdict, _short(one.wanted), _short(one.found)) for one in result.verdicts]
        print_table(("IMAGE", "VERDICT", "SHOULD BE", "IS"), rows)
        for reason in dict.fromkeys(f"{one.reference}: {one.why}" for one in result.verdicts if one.why):
            talk(reason)
        if not result.verdicts:
            talk(f"nothing was deployed to range {range_id} yet; --image names what to look for")
    if result.unwanted:
        many = len(result.unwanted)
        talk(f"note: it also has images that no deployment wants ({many}): cyroid-images ranges unwanted {range_id}")
    if result.as_of is not None:
        talk(f"as its agent said {ago(result.as_of)}; --engine-url asks the engine itself")
    context.exit(0 if result.well else NOT_WELL_STATUS)


def _short(image_id: str | None) -> str:
    return image_id[7:19] if image_id else "-"
