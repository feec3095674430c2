"""`cyroid-images images prompts` and `images skip`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from services.cli.by_api import ApiRequest, by_api, get
from services.cli.command_group import run, user
from services.cli.output import json_flag, print_json, print_page, print_table, size, talk

if TYPE_CHECKING:
    from services.core.images.prompts import Prompt, PromptAnswer
    from services.resources import Resources


@click.command()
@json_flag
@click.pass_context
@by_api(lambda: get("prompts"))
def prompts(context: click.Context, /, *, as_json: bool) -> None:
    """List images that wait for a decision to push.

    They came with --push ask; `images push` answers, or `images skip`.

    \b
    Example:
      cyroid-images images prompts
      cyroid-images images push web:1.0
    """

    async def work(resources: Resources) -> list[Prompt]:
        from services.queries.images import open_prompts

        return await open_prompts(await resources.bus(), resources.streams)

    found = run(context, work)
    if as_json:
        print_page(found)
        return
    print_table(("REFERENCE", "IMAGE ID", "SIZE", "ASKED", "FROM"), [_row(one) for one in found])
    if found:
        talk("into the registry with one: cyroid-images images push REFERENCE")


def _row(prompt: Prompt) -> tuple[str, ...]:
    asked = prompt.asked_at.astimezone().strftime("%Y-%m-%d %H:%M")
    return (prompt.reference, prompt.image_id[7:19], size(prompt.size_bytes), asked, prompt.origin)


@click.command()
@click.argument("reference", metavar="REFERENCE")
@json_flag
@click.pass_context
@by_api(
    lambda reference: ApiRequest(method="POST", path=("prompts", _id_of(reference), "answer"), body={"answer": "skip"})
)
def skip(context: click.Context, /, *, reference: str, as_json: bool) -> None:
    """Answer a prompt: do not push the image.

    A newer image of the name asks again. `images push` is the other answer.

    \b
    Example:
      cyroid-images images skip web:1.0
    """

    async def work(resources: Resources) -> PromptAnswer:
        from services.commands.prompts import answer_prompt

        return await answer_prompt(
            _id_of(reference),
            "skip",
            bus=await resources.bus(),
            streams=resources.streams,
            source=resources.source("cli"),
            actor=user(),
        )

    given = run(context, work)
    if as_json:
        print_json(given)
    else:
        click.echo(given.reference)


def _id_of(reference: str) -> str:
    """The id of the prompt about an image."""
    from services.core.images.prompts import prompt_id
    from services.core.images.references import Reference

    return prompt_id(str(Reference.parse(reference)))
