"""`cyroid-images images …`: build, import, promote and ls; beside it push, prompts and unreferenced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from services.cli.by_api import by_api, get
from services.cli.command_group import alias, complain, run, user
from services.cli.images import build_options, over_api
from services.cli.images.prompts import prompts, skip
from services.cli.images.push import push
from services.cli.images.sources import chunks_of, item_of, path_of
from services.cli.images.unreferenced import unreferenced
from services.cli.output import json_flag, print_page, print_table, progress, size, talk
from services.cli.remote import api_option

if TYPE_CHECKING:
    from events.messages import ImageAppeared, Push
    from services.core.images.ingests import IngestedImage
    from services.ingest.files import Imported
    from services.queries.images import HostImage
    from services.resources import Resources

F = TypeVar("F", bound=Callable[..., Any])


def _push_choice(command: F) -> F:
    return click.option(
        "--push",
        type=click.Choice(["auto", "always", "ask", "never"]),
        default="auto",
        show_default=True,
        help="Push the image: as `registry auto-push` says, always, when `images push` answers, or never.",
    )(command)


@click.group()
def images() -> None:
    """Build, import, promote, push, list and delete images."""


@images.command()
@click.argument("context_path", metavar="CONTEXT")
@click.option("-t", "--tag", "reference", required=True, metavar="REFERENCE", help="The image's name, such as web:1.0.")
@click.option("-f", "--file", "dockerfile", metavar="PATH", help="The Dockerfile; default CONTEXT/Dockerfile.")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--target", default="", metavar="STAGE", help="Build this stage instead of the last one.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="id=NAME,src=PATH",
    help="For RUN --mount=type=secret; also id=NAME,env=VARIABLE.",
)
@click.option("--cache-from", "cache_from", multiple=True, metavar="REFERENCE", help="An image whose steps are reused.")
@click.option("--cache-to", "cache_to", multiple=True, metavar="type=inline", help="Write the cache into the image.")
@click.option("--platform", metavar="OS/ARCH", help="Build for another platform than the engine's.")
@click.option(
    "--network",
    type=click.Choice(["default", "none", "host"]),
    default="default",
    show_default=True,
    help="The network of RUN steps.",
)
@click.option(
    "--builder",
    type=click.Choice(["auto", "buildkit", "classic"]),
    default="auto",
    show_default=True,
    help="auto is BuildKit, unless the engine has it turned off.",
)
@click.option("--pull", is_flag=True, help="Pull newer base images.")
@click.option("--no-cache", is_flag=True, help="Run every step again.")
@click.option("-q", "--quiet", is_flag=True, help="Do not show the engine's log.")
@_push_choice
@api_option
@json_flag
@click.pass_context
def build(
    context: click.Context,
    /,
    *,
    context_path: str,
    reference: str,
    dockerfile: str | None,
    quiet: bool,
    push: Push,
    api_url: str | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Build an image on the host's engine.

    CONTEXT is a folder, a Dockerfile, a tar of a context, or - for such a tar on standard input.

    \b
    Examples:
      cyroid-images images build . -t web:1.0
      cyroid-images images build ./Dockerfile -t base:1 --push always
      cyroid-images images build . -t web:1.0 --secret id=pip,src=pip.conf --target release
      tar -c . | cyroid-images images build - -t web:1.0
    """
    options = build_options.read(**chosen)
    if api_url:
        asked = over_api.build(
            api_url,
            context_path,
            dockerfile=dockerfile,
            reference=reference,
            options=options,
            push=push,
            quiet=quiet,
        )
        _print_images(asyncio.run(asked), as_json)
        return
    source = build_options.ContextSource(context_path, dockerfile)
    on_line = _say_nothing if quiet else talk
    built = run(
        context,
        lambda resources: build_options.build(resources, source, reference, options, push=push, on_line=on_line),
    )
    _print_images([built], as_json)


def _say_nothing(line: str) -> None:
    """Print nothing (`--quiet`)."""


@images.command("import")
@click.argument("sources", nargs=-1, required=True, metavar="ARCHIVE|REFERENCE|-…")
@click.option("--as", "name", metavar="REFERENCE", help="The name for the archive's one image, instead of its own.")
@_push_choice
@api_option
@json_flag
@click.pass_context
def import_(
    context: click.Context,
    /,
    *,
    sources: Sequence[str],
    name: str | None,
    push: Push,
    api_url: str | None,
    as_json: bool,
) -> None:
    """Import image archives and blueprints, or pull references.

    What exists as a file, or is written like one (./x, /x, x.tar, x.tar.gz, x.zip), is an archive; - is one on
    standard input. One that fails does not stop the others.

    \b
    Examples:
      cyroid-images images import windows10.tar.gz debian:12
      ssh other docker save web:1.0 | cyroid-images images import -
    """
    if name and len(sources) > 1:
        raise click.UsageError("--as names one image, so give one archive with it")
    if name and path_of(sources[0]) is None:
        raise click.UsageError("--as is for archives; `images promote` gives a pulled image another name")
    if api_url:
        context.exit(_import_over_api(api_url, sources, name, push, as_json=as_json))

    async def work(resources: Resources) -> list[Imported]:
        from services.ingest.files import import_many

        importer = await resources.importer()
        with progress() as shown:
            return await import_many(
                [item_of(source, name) for source in sources],
                importer=importer,
                limit_bytes=resources.settings.import_limit_bytes,
                push=push,
                actor=user(),
                on_progress=lambda step: shown.show(
                    step.layer or "import", step.status, step.done_bytes, step.total_bytes
                ),
            )

    results = run(context, work)
    _print_images([image for result in results for image in result.images], as_json)
    failed = [result for result in results if result.error is not None]
    for result in failed:
        complain(str(result.error))
    if failed:
        context.exit(max(result.error.entry.exit_status for result in failed if result.error))


def _import_over_api(api_url: str, sources: Sequence[str], name: str | None, push: Push, *, as_json: bool) -> int:
    named = [(source, None if path_of(source) is None else chunks_of(source)) for source in sources]
    found, status = asyncio.run(over_api.import_each(api_url, named, name, push))
    _print_images(found, as_json)
    return status


@images.command()
@click.argument("source", metavar="CONTAINER|IMAGE")
@click.argument("reference", metavar="REFERENCE")
@click.option(
    "--change",
    "changes",
    multiple=True,
    metavar="INSTRUCTION",
    help="A Dockerfile instruction such as 'CMD [\"nginx\"]'; may be repeated.",
)
@click.option("--image", "as_image", is_flag=True, help="SOURCE is an image, even if a container has that name.")
@_push_choice
@api_option
@json_flag
@click.pass_context
def promote(
    context: click.Context,
    /,
    *,
    source: str,
    reference: str,
    changes: Sequence[str],
    as_image: bool,
    push: Push,
    api_url: str | None,
    as_json: bool,
) -> None:
    """Make an image of a container, or add a name.

    \b
    Examples:
      cyroid-images images promote my-container web:configured --change 'CMD ["nginx"]'
      cyroid-images images promote --image web:1.0 web:stable
    """
    if api_url:
        asked = over_api.promote(api_url, source, reference, changes, push, is_image=as_image)
        _print_images(asyncio.run(asked), as_json)
        return

    async def work(resources: Resources) -> ImageAppeared:
        from services.errors import BadInput, NotFound

        service = await resources.promote()
        if as_image:
            if changes:
                raise BadInput("--change changes what a container became; another name for an image changes nothing")
            return await service.promote_image(source, reference=reference, push=push, actor=user())
        try:
            return await service.promote_container(
                source, reference=reference, changes=changes, push=push, actor=user()
            )
        except NotFound as problem:
            raise NotFound(f"{problem}; if {source} is an image, say --image") from problem

    _print_images([run(context, work)], as_json)


@images.command("ls")
@json_flag
@click.pass_context
@by_api(lambda: get("images"))
def list_(context: click.Context, /, *, as_json: bool) -> None:
    """List images of the host's engine, and whether the registry has them."""

    async def work(resources: Resources) -> list[HostImage]:
        from services.queries.images import host_images

        return await host_images(await resources.host_engine(), await resources.registry())

    rows = run(context, work)
    if as_json:
        print_page(rows)
        return
    print_table(
        ("REFERENCE", "IMAGE ID", "SIZE", "REGISTRY"),
        [(row.reference, (row.image_id or row.local_id)[7:19], size(row.size_bytes), row.registry) for row in rows],
    )


def _print_images(found: Sequence[ImageAppeared | IngestedImage], as_json: bool) -> None:
    if as_json:
        print_page(found)
        return
    for image in found:
        click.echo(f"{image.image_id} {image.reference}")


for command in (push, skip, prompts, unreferenced, alias(unreferenced, "unwanted")):
    images.add_command(command)
