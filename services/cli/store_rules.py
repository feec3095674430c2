"""`cyroid-images registry retention` and `registry auto-push`: rules that are changed while the services run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from services.cli.by_api import ApiRequest, by_api, changed, post
from services.cli.command_group import complain, run
from services.cli.output import json_flag, print_json, print_table, size
from services.cli.serving_role import tell_if_unserved

if TYPE_CHECKING:
    import msgspec

    from events.records import Key
    from services.commands.store import RetentionView
    from services.core.images.auto_push import AutoPush
    from services.core.store.retention import RetentionRules
    from services.resources import Resources

FAILED_STATUS = 5
S = TypeVar("S", bound="msgspec.Struct")
_RETENTION = ("registry", "retention")
_CHOICES = {"on": True, "off": False, "default": None}


# ---- retention ----


@click.group()
def retention() -> None:
    """Delete tags by age, number and size.

    The rules are applied before each scheduled collection.
    """


def _with(rule: dict[str, Any]) -> Callable[[RetentionRules], RetentionRules]:
    """Add or replace a rule, made of its fields."""

    def change(rules: RetentionRules) -> RetentionRules:
        from services.core.store.retention import RetentionRule

        return rules.with_rule(RetentionRule(**rule))

    return change


def _retention_change(change: Callable[[RetentionRules], RetentionRules]) -> ApiRequest:
    from services.core.store.retention import RetentionRules

    return changed(RetentionRules, change, *_RETENTION, shown=_print_rules)


@retention.command("show")
@json_flag
@click.pass_context
@by_api(lambda: _retention_change(lambda rules: rules))
def show_rules(context: click.Context, /, *, as_json: bool) -> None:
    """Print the rules.

    The first that fits a name decides on it.
    """
    _print_rules(_changed_rules(context, lambda rules: rules), as_json)


@retention.command("add")
@click.argument("pattern")
@click.option("--keep-last", type=click.IntRange(min=1), metavar="N", help="Keep the newest N tags of a repository.")
@click.option(
    "--keep-days", type=click.FloatRange(min=0, min_open=True), metavar="D", help="Keep what was used within D days."
)
@click.option(
    "--cap-bytes", type=click.IntRange(min=0), metavar="BYTES", help="Delete the least recently used above this size."
)
@json_flag
@click.pass_context
@by_api(lambda **rule: _retention_change(_with(rule)))
def add_rule(context: click.Context, /, *, as_json: bool, **rule: Any) -> None:
    """Add or replace a rule.

    It is for names that PATTERN fits (`*/team/*`) and replaces the one with that pattern. A tag is kept if it is
    among the newest, or was pushed, deployed or pulled lately; what an open deployment, a plan
    or a range needs is always kept. See what it would do with `registry retention run --dry-run`.
    """
    _print_rules(_changed_rules(context, _with(rule)), as_json)


@retention.command("rm")
@click.argument("pattern")
@json_flag
@click.pass_context
@by_api(lambda pattern: _retention_change(lambda rules: rules.without(pattern)))
def remove_rule(context: click.Context, /, *, pattern: str, as_json: bool) -> None:
    """Remove a rule."""
    _print_rules(_changed_rules(context, lambda rules: rules.without(pattern)), as_json)


@retention.command("run")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, with the reason for each image.")
@json_flag
@click.pass_context
@by_api(lambda dry_run: post(*_RETENTION, "run", dry_run=dry_run))
def run_rules(context: click.Context, /, *, dry_run: bool, as_json: bool) -> None:
    """Apply the rules now.

    The content is freed by later collections.
    """

    async def work(resources: Resources) -> RetentionView:
        from events.messages import RetentionRequested
        from services.commands.request_reply import RequestReplyClient
        from services.commands.store import retention as apply

        bus, source = await resources.bus(), resources.source("cli")
        await tell_if_unserved(resources, "collector")
        requests = RequestReplyClient(bus=bus, streams=resources.streams, source=source)
        return await apply(requests, RetentionRequested(dry_run=dry_run))

    answer = run(context, work)
    if as_json:
        print_json(answer)
    if not answer.ended:
        complain("there is no answer yet; see whether the role collector runs: cyroid-images doctor")
        context.exit(FAILED_STATUS)
    if as_json:
        return
    rows = [
        ("keep" if one.keep else "delete", one.reference, "" if one.keep else size(one.freed_bytes), one.reason)
        for one in answer.verdicts
    ]
    print_table(("VERDICT", "IMAGE", "FREES", "REASON"), rows)
    done = "would be deleted" if answer.dry_run else "are deleted"
    click.echo(f"{answer.deleted} tags {done}, {answer.kept} stay; a collection frees {size(answer.freed_bytes)}")


def _changed_rules(context: click.Context, change: Callable[[RetentionRules], RetentionRules]) -> RetentionRules:
    async def work(resources: Resources) -> RetentionRules:
        from services.core.store.retention import RetentionRules, retention_key

        return await changed_setting(resources, retention_key(resources.streams.prefix), RetentionRules(), change)

    return run(context, work)


def _print_rules(rules: RetentionRules, as_json: bool) -> None:
    if as_json:
        print_json(rules)
        return
    rows = [
        (
            rule.pattern,
            "" if rule.keep_last is None else str(rule.keep_last),
            "" if rule.keep_days is None else f"{rule.keep_days:g}",
            "" if rule.cap_bytes is None else size(rule.cap_bytes),
        )
        for rule in rules.rules
    ]
    print_table(("PATTERN", "KEEP LAST", "KEEP DAYS", "CAP"), rows)


# ---- auto-push ----


def _auto_push_change(choice: str | None, pattern: str | None) -> Callable[[AutoPush], AutoPush]:
    def change(before: AutoPush) -> AutoPush:
        import msgspec

        if choice is None:
            return before
        if pattern is not None:
            return before.with_rule(pattern, _CHOICES[choice])
        return msgspec.structs.replace(before, push=_CHOICES[choice])

    return change


def _auto_push_request(choice: str | None, pattern: str | None) -> ApiRequest:
    from services.core.images.auto_push import AutoPush

    change = _auto_push_change(choice, pattern)
    return changed(AutoPush, change, "settings", "auto-push", shown=_print_auto_push)


@click.command("auto-push")
@click.argument("choice", type=click.Choice(list(_CHOICES)), required=False)
@click.option("--pattern", metavar="PATTERN", help="Of images whose full name fits; `default` takes the rule out.")
@json_flag
@click.pass_context
@by_api(_auto_push_request)
def auto_push(context: click.Context, /, *, choice: str | None, pattern: str | None, as_json: bool) -> None:
    """Show or change which images are pushed by themselves.

    It is about images that come with `--push auto`, and holds at once. The first pattern that fits a full name
    (`docker.io/team/*`) decides, then the choice for all; `default` is as
    CYROID_AUTO_PUSH says.

    \b
    Examples:
      cyroid-images registry auto-push
      cyroid-images registry auto-push off --pattern 'docker.io/team/*:dev-*'
    """

    async def work(resources: Resources) -> AutoPush:
        from services.core.images.auto_push import AutoPush, auto_push_key

        key, change = auto_push_key(resources.streams.prefix), _auto_push_change(choice, pattern)
        return await changed_setting(resources, key, AutoPush(), change)

    _print_auto_push(run(context, work), as_json)


def _print_auto_push(found: AutoPush, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for rule in found.rules:
        click.echo(f"{'on' if rule.push else 'off':<8} {rule.pattern}")
    click.echo(f"{'default' if found.push is None else 'on' if found.push else 'off':<8} all other images")


async def changed_setting(resources: Resources, key: Key[S], empty: S, change: Callable[[S], S]) -> S:
    """A setting's record, changed unless somebody else changes it in this very moment: then again."""
    import msgspec

    from events.bus import Outcome, RecordConflict
    from services.errors import BadInput

    bus = await resources.bus()
    while True:
        stored = await key.load(bus)
        before = stored.value or empty
        after = change(before)
        if after == before:
            return before
        try:
            checked = msgspec.json.decode(msgspec.json.encode(after), type=type(empty))
            await bus.commit(Outcome(records=(key.write(checked, expected=stored),)))
        except msgspec.ValidationError as problem:
            raise BadInput(f"that rule is not allowed: {problem}") from problem
        except RecordConflict:
            continue
        return checked
