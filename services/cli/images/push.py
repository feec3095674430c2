"""`cyroid-images images push` and `images prompts`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from events.task_group import TaskGroup
from services.cli.by_api import ApiRequest, by_api, get
from services.cli.command_group import complain, run, user
from services.cli.output import LINE_SECONDS, json_flag, print_json, print_page, print_table, progress, size, talk

if TYPE_CHECKING:
    from events.messages import ImagePushed, ImagePushFailed
    from services.cli.output import Progress
    from services.commands.requests import PushAsked
    from services.core.images.prompts import Prompt, PromptAnswer
    from services.ports import Registry
    from services.resources import Resources

FAILED_STATUS = 5


@click.command()
@click.argument("references", nargs=-1, required=True, metavar="REFERENCE…")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the end, and show progress.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop waiting after so many seconds.",
)
@click.option("--host", metavar="HOST", help="Push what the engine of this host has (`hosts ls`).")
@json_flag
@click.pass_context
@by_api(
    lambda references, wait, timeout, host: ApiRequest(
        method="POST",
        path=("registry", "push-many"),
        body={"references": list(references), **({"host": host} if host else {})},
        follow="push-batches/{id}" if wait else "",
        failed=lambda batch: bool(batch.get("refused") or batch.get("counts", {}).get("failed")),
    )
)
def push(
    context: click.Context,
    /,
    *,
    references: Sequence[str],
    wait: bool,
    timeout: float | None,
    host: str | None,
    as_json: bool,
) -> None:
    """Push images into the registry.

    An image that this host's engine lacks is pushed from a host that holds it. A prompt for the image is answered by
    that.

    The exit status is 0 when the registry has all of them, 5 when not. Ctrl-C stops the waiting, not the push.

    \b
    Examples:
      cyroid-images images push web:1.0 db:16
      cyroid-images images push web:1.0 --no-wait
      cyroid-images images push web:1.0 --host host-2
    """

    async def work(resources: Resources) -> tuple[list[PushAsked], dict[str, ImagePushed | ImagePushFailed]]:
        asked = await _ask(resources, references, host)
        return asked, await _wait(resources, asked, timeout) if wait else {}

    asked, ended = run(context, work)
    if as_json:
        print_page([ended.get(one.id) or one for one in asked])
    else:
        _print_ends(asked, ended)
    for one in asked:
        _complain_of(ended.get(one.id))
    well = sum(type(end).__name__ == "ImagePushed" for end in ended.values())
    context.exit(FAILED_STATUS if wait and well < len(asked) else 0)


async def _ask(resources: Resources, references: Sequence[str], host: str | None) -> list[PushAsked]:
    from services.commands.requests import ask_for_push

    engine, bus = await resources.host_engine(), await resources.bus()
    return [
        await ask_for_push(
            reference,
            engine=engine,
            bus=bus,
            streams=resources.streams,
            source=resources.source("cli"),
            actor=user(),
            host=host,
        )
        for reference in references
    ]


async def _wait(
    resources: Resources, asked: Sequence[PushAsked], timeout: float | None
) -> dict[str, ImagePushed | ImagePushFailed]:
    """The pushes that ended in time, by the id of the request."""
    from services.queries.progress import watch_pushes

    bus = await resources.bus()
    ended: dict[str, ImagePushed | ImagePushFailed] = {}
    try:
        with progress() as shown:
            async with asyncio.timeout(timeout), TaskGroup() as group:
                reasons = group.create_task(_say_why_it_waits(resources, shown))
                async for request_id, end in watch_pushes(
                    bus,
                    resources.streams,
                    [one.id for one in asked],
                    references={one.reference for one in asked},
                    on_progress=lambda step: shown.show(
                        f"push {step.reference}", step.phase, step.done_bytes, step.total_bytes
                    ),
                ):
                    ended[request_id] = end
                reasons.cancel()
    except TimeoutError:
        complain(f"not ended after {timeout:g} seconds; it goes on: cyroid-images events tail")
    except asyncio.CancelledError:
        talk("it goes on without you")
        raise
    return ended


async def _say_why_it_waits(resources: Resources, shown: Progress) -> None:
    """Report that nothing can happen: the registry is unavailable (at once), or no pusher runs (after a while)."""
    bus, registry = await resources.bus(), await resources.registry()
    why = await _why_no_registry(registry)
    if why is not None:
        shown.show("push", why)
    while True:
        await asyncio.sleep(LINE_SECONDS / 2)
        statuses = await bus.groups([resources.streams.images])
        # Where Redis cannot tell the lag nothing is known against the pusher.
        if not any(status.group == "registry-pusher" and status.lag in (0, None) for status in statuses):
            shown.show("push", "no registry-pusher has taken it yet: is `cyroid-images serve registry-pusher` running?")
        else:
            shown.show("push", await _why_no_registry(registry) or "under way")


async def _why_no_registry(registry: Registry) -> str | None:
    """Why the registry does not answer; None when it does. The pusher handles every other error itself."""
    from services.errors import CyroidError, RegistryUnavailable

    try:
        await registry.ping()
    except RegistryUnavailable as problem:
        return f"{problem}; it goes in once that is back"
    except CyroidError as problem:
        return f"the registry is not well: {problem}"
    return None


def _print_ends(asked: Sequence[PushAsked], ended: Mapping[str, ImagePushed | ImagePushFailed]) -> None:
    """Print the names that are in the registry (or, without waiting, were requested) to stdout."""
    from events.messages import ImagePushed

    for one in asked:
        end = ended.get(one.id)
        if isinstance(end, ImagePushed):
            click.echo(end.reference)
            talk(
                f"pushed in {end.seconds:.1f} s: {size(end.sent_bytes)} sent, {size(end.reused_bytes)} were there"
                f" ({end.method})"
            )
        elif end is None:
            click.echo(one.reference)
            talk(f"requested; the request is {one.id}")


def _complain_of(end: ImagePushed | ImagePushFailed | None) -> None:
    error = getattr(end, "error", None)
    if end is not None and error is not None:
        about = "" if end.reference in error.message else f"{end.reference}: "
        complain(f"{about}{error.message} ({error.code})")


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
