"""`cyroid-images images adopt|reclaim|fetch` and `registry reclaim-rules`: the host engine's copies of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from services.cli.by_api import ApiRequest, by_api, changed, post
from services.cli.command_group import complain, run, user
from services.cli.output import json_flag, print_json, print_table, size, talk
from services.cli.serving_role import tell_if_unserved
from services.cli.store_rules import changed_setting

if TYPE_CHECKING:
    from services.commands.host_images import AdoptionView, Fetched, ReclaimView
    from services.commands.request_reply import RequestReplyClient
    from services.core.images.reclaim_rules import ReclaimRules
    from services.resources import Resources

FAILED_STATUS = 5
_NO_ANSWER = "there is no answer yet; see whether the role registry-pusher runs: cyroid-images doctor"
_timeout = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=600.0,
    show_default=True,
    help="Wait no longer; the work goes on.",
)
host_option = click.option(
    "--host", metavar="HOST", help="On the engine of this host (`hosts ls`), instead of any one's."
)


@click.command()
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN…")
@click.option(
    "--from",
    "origin",
    type=click.Choice(["host", "registry", "both"]),
    default="both",
    show_default=True,
    help="Where to look for images.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be taken up, with sizes and an estimate; change nothing.")
@host_option
@_timeout
@json_flag
@click.pass_context
@by_api(lambda timeout, **chosen: post("images", "adopt", **chosen))
def adopt(
    context: click.Context,
    /,
    *,
    patterns: Sequence[str],
    origin: str,
    dry_run: bool,
    host: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Take up images that are there already.

    Those of the host's engine that the registry lacks are pushed. Tags of the registry that no push by this project
    brought are announced; those under upstream's own names (nginx, which is library/nginx here) are mounted under ours.
    A name with other content in the registry keeps it. What is there is left alone, so run it again after it broke off.

    \b
    Examples:
      cyroid-images images adopt '*' --dry-run
      cyroid-images images adopt 'nginx:*' 'docker.io/team/*' --from host
    """

    async def work(resources: Resources) -> AdoptionView:
        from typing import cast

        from events.messages import AdoptRequested
        from services.commands.host_images import adoption

        command = AdoptRequested(patterns=tuple(patterns), origin=cast(Any, origin), dry_run=dry_run, host=host)
        return await adoption(await _client(resources, timeout), command)

    answer = run(context, work)
    if as_json:
        print_json(answer)
    elif answer.ended:
        _print_adoption(answer)
    _end(context, answer.ended)


def _print_adoption(answer: AdoptionView) -> None:
    rows = [
        (one.state, one.reference, one.origin, size(one.size_bytes), size(one.missing_bytes), one.note or one.found_as)
        for one in answer.images
    ]
    print_table(("STATE", "IMAGE", "FROM", "SIZE", "TO SEND", "NOTE"), rows)
    seconds = (
        "" if answer.estimated_seconds is None else f", about {answer.estimated_seconds:.0f} s as pushes went so far"
    )
    done = "would be taken up" if answer.dry_run else "are taken up"
    talk(
        f"{answer.new} images {done} ({size(answer.size_bytes)}, {size(answer.missing_bytes)} to send{seconds});"
        f" {answer.present} were there"
    )
    if answer.left:
        talk(f"{answer.left} more are new: the same command again takes them up")


@click.command()
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN…")
@click.option("--dry-run", is_flag=True, help="Say what would be freed; change nothing.")
@host_option
@_timeout
@json_flag
@click.pass_context
@by_api(lambda timeout, **chosen: post("images", "reclaim", **chosen))
def reclaim(
    context: click.Context,
    /,
    *,
    patterns: Sequence[str],
    dry_run: bool,
    host: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Free the host engine's copies of images that the registry has.

    The registry's copy is read back and hashed first. The last name of an image that a container uses stays. `images
    fetch` brings a copy back.

    \b
    Examples:
      cyroid-images images reclaim 'docker.io/team/*' --dry-run
      cyroid-images images reclaim web:1.0
    """

    async def work(resources: Resources) -> ReclaimView:
        from events.messages import ReclaimRequested
        from services.commands.host_images import reclaimed

        command = ReclaimRequested(patterns=tuple(patterns), dry_run=dry_run, host=host)
        return await reclaimed(await _client(resources, timeout), command)

    answer = run(context, work)
    if as_json:
        print_json(answer)
    elif answer.ended:
        rows = [
            ("free" if one.freed else "keep", one.reference, size(one.freed_bytes), one.reason) for one in answer.images
        ]
        print_table(("VERDICT", "IMAGE", "FREES", "REASON"), rows)
        talk(f"{size(answer.freed_bytes)} {'would be' if answer.dry_run else 'are'} freed on the host's engine")
    _end(context, answer.ended)


@click.command()
@click.argument("references", nargs=-1, required=True, metavar="REFERENCE…")
@host_option
@_timeout
@json_flag
@click.pass_context
@by_api(lambda timeout, references, host: [post("images", "fetch", reference=one, host=host) for one in references])
def fetch(
    context: click.Context, /, *, references: Sequence[str], host: str | None, timeout: float, as_json: bool
) -> None:
    """Bring images back from the registry to the host's engine.

    What it has is left alone.

    \b
    Example:
      cyroid-images images fetch web:1.0
      cyroid-images images fetch web:1.0 --host host-2
    """

    async def work(resources: Resources) -> list[Fetched]:
        from events.messages import FetchRequested
        from services.commands.host_images import fetched
        from services.core.images.references import Reference

        names = [str(Reference.parse(one)) for one in references]
        client = await _client(resources, timeout)
        return [await fetched(client, FetchRequested(reference=name, host=host)) for name in names]

    answers = run(context, work)
    if as_json:
        print_json({"items": answers})
    else:
        for one in answers:
            click.echo(f"{one.reference} {'was there' if one.present else f'is there again ({one.seconds:.1f} s)'}")
    _end(context, all(one.ended for one in answers))


def _change(
    pattern: str | None, after_days: float | None, keep: bool, remove: bool
) -> Callable[[ReclaimRules], ReclaimRules]:
    """Without a pattern nothing is changed. Raises click.UsageError."""
    if pattern is None:
        return lambda rules: rules
    if sum((after_days is not None, keep, remove)) != 1:
        raise click.UsageError("give one of --after-days, --keep and --remove with a pattern")

    def change(before: ReclaimRules) -> ReclaimRules:
        from services.core.images.reclaim_rules import ReclaimRule

        rule = ReclaimRule(pattern=pattern, after_days=after_days)
        return before.without(pattern) if remove else before.with_rule(rule)

    return change


def _rules_request(pattern: str | None, **chosen: Any) -> ApiRequest:
    from services.core.images.reclaim_rules import ReclaimRules

    return changed(ReclaimRules, _change(pattern, **chosen), "settings", "reclaim", shown=_print_rules)


@click.command("reclaim-rules")
@click.argument("pattern", required=False)
@click.option(
    "--after-days",
    type=click.FloatRange(min=0, max=3650),
    metavar="D",
    help="Free copies D days after their push; 0: at once.",
)
@click.option("--keep", is_flag=True, help="Never free copies of these.")
@click.option("--remove", is_flag=True, help="Take the rule out.")
@json_flag
@click.pass_context
@by_api(_rules_request)
def reclaim_rules(context: click.Context, /, *, pattern: str | None, as_json: bool, **chosen: Any) -> None:
    """Show or change which copies on the host's engine are freed.

    A copy goes after the image was pushed and its copy in the registry was read back. The first pattern that fits a
    full name (`docker.io/team/*`) decides; without one the host keeps its copy. Before the disk of the registry is
    full, what a rule allows goes at once.

    \b
    Examples:
      cyroid-images registry reclaim-rules
      cyroid-images registry reclaim-rules 'docker.io/team/*' --after-days 7
    """
    change = _change(pattern, **chosen)

    async def work(resources: Resources) -> ReclaimRules:
        from services.core.images.reclaim_rules import ReclaimRules, reclaim_key

        return await changed_setting(resources, reclaim_key(resources.streams.prefix), ReclaimRules(), change)

    _print_rules(run(context, work), as_json)


def _print_rules(found: ReclaimRules, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [(one.pattern, "never" if one.after_days is None else f"{one.after_days:g} days") for one in found.rules]
    print_table(("PATTERN", "FREED AFTER"), rows)


async def _client(resources: Resources, timeout: float) -> RequestReplyClient:
    from services.commands.request_reply import RequestReplyClient

    await tell_if_unserved(resources, "registry-pusher")
    return RequestReplyClient(
        bus=await resources.bus(),
        streams=resources.streams,
        source=resources.source("cli"),
        actor=user(),
        within_seconds=timeout,
    )


def _end(context: click.Context, ended: bool) -> None:
    if not ended:
        complain(_NO_ANSWER)
    context.exit(0 if ended else FAILED_STATUS)
