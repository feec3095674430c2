"""`cyroid-images images push`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from events.task_group import TaskGroup
from services.cli.by_api import ApiRequest, by_api, get
from services.cli.command_group import complain, run, user
from services.cli.output import LINE_SECONDS, json_flag, print_page, print_table, progress, size, talk

if TYPE_CHECKING:
    from events.messages import ImagePushed, ImagePushFailed
    from services.cli.output import Progress
    from services.commands.requests import PushAsked
    from services.ports import Registry
    from services.queries.push_preview import PushPreview
    from services.resources import Resources

FAILED_STATUS = 5


def _check(references: Sequence[str], *, all_missing: bool, dry_run: bool) -> None:
    """Raises click.UsageError."""
    if bool(references) is all_missing:
        raise click.UsageError("name images, or say --all-missing: one of the two")
    if all_missing and dry_run:
        raise click.UsageError("--dry-run is for images that are named; `images ls` shows which the registry lacks")


def _push_requests(
    references: Sequence[str], *, all_missing: bool, dry_run: bool, wait: bool, host: str | None, timeout: float | None
) -> ApiRequest | list[ApiRequest]:
    _check(references, all_missing=all_missing, dry_run=dry_run)
    if dry_run:
        return [get("registry", "push", "preview", reference=one) for one in references]
    wanted: dict[str, object] = {"all_missing": True} if all_missing else {"references": list(references)}
    return ApiRequest(
        method="POST",
        path=("registry", "push-many"),
        body={**wanted, **({"host": host} if host else {})},
        follow="push-batches/{id}" if wait else "",
        failed=lambda batch: bool(batch.get("refused") or batch.get("counts", {}).get("failed")),
    )


@click.command()
@click.argument("references", nargs=-1, metavar="[REFERENCE…]")
@click.option("--all-missing", is_flag=True, help="All images of the host's engine that the registry lacks.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent; push nothing.")
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
@by_api(_push_requests)
def push(
    context: click.Context,
    /,
    *,
    references: Sequence[str],
    all_missing: bool,
    dry_run: bool,
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
      cyroid-images images push --all-missing
    """
    _check(references, all_missing=all_missing, dry_run=dry_run)
    if dry_run:
        _print_previews(run(context, lambda resources: _previews(resources, references)), as_json)
        return

    async def work(resources: Resources) -> tuple[list[PushAsked], dict[str, ImagePushed | ImagePushFailed]]:
        asked = await (_ask_for_missing(resources, host) if all_missing else _ask(resources, references, host))
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


async def _ask_for_missing(resources: Resources, host: str | None) -> list[PushAsked]:
    from services.commands.many_pushes import ask_for_pushes
    from services.commands.requests import PushAsked

    batch = await ask_for_pushes(
        None,
        engine=await resources.host_engine(),
        registry=await resources.registry(),
        bus=await resources.bus(),
        streams=resources.streams,
        source=resources.source("cli"),
        actor=user(),
        host=host,
    )
    for one in batch.refused:
        complain(f"{one.reference}: {one.message}")
    return [PushAsked(reference=one.reference, id=one.id) for one in batch.pushes]


async def _previews(resources: Resources, references: Sequence[str]) -> list[PushPreview]:
    from services.queries.push_preview import push_preview

    engine, registry, bus = await resources.host_engine(), await resources.registry(), await resources.bus()
    return [
        await push_preview(one, engine=engine, registry=registry, bus=bus, streams=resources.streams)
        for one in references
    ]


def _print_previews(found: Sequence[PushPreview], as_json: bool) -> None:
    if as_json:
        print_page(found)
        return
    rows = [(one.reference, one.tag, f"{one.missing_layers} of {one.layers}", size(one.missing_bytes)) for one in found]
    print_table(("IMAGE", "TAG THERE", "LAYERS MISSING", "TO SEND"), rows)


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
