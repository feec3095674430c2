"""`cyroid-images verify`: has a range what it should have?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from services.cli.by_api import ApiRequest, by_api
from services.cli.command_group import run
from services.cli.output import ago, json_flag, print_json, print_table, talk

if TYPE_CHECKING:
    from services.queries.verification import RangeVerification
    from services.resources import Resources

NOT_WELL_STATUS = 5


def _verify_request(range_id: str, references: Sequence[str], engine_url: str | None) -> ApiRequest:
    if engine_url is not None:
        raise click.UsageError("--engine-url is for verifications without --api: it asks the engine from here")
    return ApiRequest(
        path=("ranges", range_id, "verification"),
        query={"image": list(references)} if references else {},
        failed=lambda result: not result["well"],
    )


@click.command()
@click.argument("range_id", metavar="RANGE")
@click.option(
    "--image", "references", multiple=True, metavar="REFERENCE", help="Check only this image; may be repeated."
)
@click.option("--engine-url", metavar="URL", help="Ask the range's engine at this address instead of the records.")
@json_flag
@click.pass_context
@by_api(_verify_request)
def verify(
    context: click.Context, /, *, range_id: str, references: Sequence[str], engine_url: str | None, as_json: bool
) -> None:
    """Compare a range with its desired state.

    By default every image that was deployed to it is checked. Without --engine-url the last report of the range's agent
    is used; its age is shown. The exit status is 5 if anything is missing, has other content, stands on mounted layers
    that cannot be read, or is not known. Further images are only noted.

    \b
    Examples:
      cyroid-images verify range-7
      cyroid-images verify range-7 --image web:1.0 --engine-url tcp://10.0.7.2:2375
    """

    async def work(resources: Resources) -> RangeVerification:
        from services.queries.verification import Verifier

        verifier = Verifier(
            bus=await resources.bus(),
            streams=resources.streams,
            engine=resources.host_engine,
            registry=resources.registry,
        )
        if engine_url is None:
            return await verifier.verify(range_id, references)
        async with resources.other_engine(resources.settings.engine_url) as engine:
            return await verifier.verify(range_id, references, asked=engine)

    result = run(context, work, **({"engine_url": engine_url} if engine_url else {}))
    if as_json:
        print_json(result)
    else:
        rows = [(one.reference, one.verdict, _short(one.wanted), _short(one.found)) for one in result.items]
        print_table(("IMAGE", "RESULT", "SHOULD BE", "IS"), rows)
        for reason in dict.fromkeys(f"{one.reference}: {one.why}" for one in result.items if one.why):
            talk(reason)
        if not result.items:
            talk(f"nothing was deployed to range {range_id} yet; --image names what to look for")
    if result.unwanted:
        many = len(result.unwanted)
        talk(f"note: it also has unreferenced images ({many}): cyroid-images ranges unreferenced {range_id}")
    if result.as_of is not None:
        talk(f"as its agent said {ago(result.as_of)}; --engine-url asks the engine itself")
    context.exit(0 if result.well else NOT_WELL_STATUS)


def _short(image_id: str | None) -> str:
    return image_id[7:19] if image_id else "-"
