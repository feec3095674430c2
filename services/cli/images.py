"""`cyroid-images images …`: build, import, promote, list and push."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from services.cli.door import complain, run
from services.cli.output import json_flag, print_json, print_table, progress, size, talk

if TYPE_CHECKING:
    from events.messages import ImageAppeared, Push
    from services.importer import Archive, Imported
    from services.parts import Parts

F = TypeVar("F", bound=Callable[..., Any])
_ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")


def _push_choice(command: F) -> F:
    return click.option(
        "--push",
        type=click.Choice(["auto", "always", "ask", "never"]),
        default="auto",
        show_default=True,
        help="Into the registry: as CYROID_AUTO_PUSH says, in any case, after somebody agreed, or not.",
    )(command)


@click.group()
def images() -> None:
    """Make images on the host's engine and bring them into the registry."""


@images.command()
@click.argument("context_path", metavar="CONTEXT")
@click.option("-t", "--tag", "reference", required=True, metavar="REFERENCE", help="The image's name, such as web:1.0.")
@click.option("-f", "--file", "dockerfile", metavar="PATH", help="The Dockerfile; default CONTEXT/Dockerfile.")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME=VALUE", help="May be given again.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="May be given again.")
@click.option("--platform", metavar="OS/ARCH", help="Build for another platform than the engine's.")
@click.option("--pull", is_flag=True, help="Ask for newer base images.")
@click.option("--no-cache", is_flag=True, help="Run every step again.")
@click.option("-q", "--quiet", is_flag=True, help="Without the engine's log.")
@_push_choice
@json_flag
@click.pass_context
def build(
    context: click.Context,
    /,
    *,
    context_path: str,
    reference: str,
    dockerfile: str | None,
    build_args: Sequence[str],
    labels: Sequence[str],
    platform: str | None,
    pull: bool,
    no_cache: bool,
    quiet: bool,
    push: Push,
    as_json: bool,
) -> None:
    """Build CONTEXT: a folder, a Dockerfile, a tar of a context, or - for such a tar on standard input.

    \b
    Examples:
      cyroid-images images build . -t web:1.0
      cyroid-images images build ./Dockerfile -t base:1 --push always
      tar -c . | cyroid-images images build - -t web:1.0
    """
    from services.adapters.build_context import open_context
    from services.build import BuildOptions

    async def work(parts: Parts) -> ImageAppeared:
        opened = open_context(context_path, dockerfile)
        options = BuildOptions(
            dockerfile=opened.dockerfile,
            build_args=_pairs(build_args, "--build-arg"),
            labels=_pairs(labels, "--label"),
            platform=platform,
            pull=pull,
            no_cache=no_cache,
        )
        service = await parts.build()
        return await service.build(
            opened.chunks(),
            reference=reference,
            origin=opened.origin,
            options=options,
            push=push,
            on_line=(lambda line: None) if quiet else talk,
        )

    _print_images([run(context, work)], as_json)


@images.command("import")
@click.argument("sources", nargs=-1, required=True, metavar="ARCHIVE|REFERENCE|-…")
@click.option("--as", "name", metavar="REFERENCE", help="The name for the archive's one image, instead of its own.")
@_push_choice
@json_flag
@click.pass_context
def import_(context: click.Context, /, *, sources: Sequence[str], name: str | None, push: Push, as_json: bool) -> None:
    """Bring images onto the host's engine: archives of `docker save`, and references that the engine pulls.

    What exists as a file, or is written like one (./x, /x, x.tar, x.tar.gz, x.tgz), is an archive; - is one on
    standard input. One that fails does not stop the others.

    \b
    Examples:
      cyroid-images images import windows10.tar.gz debian:12
      ssh other docker save web:1.0 | cyroid-images images import -
    """
    if name and len(sources) > 1:
        raise click.UsageError("--as names one image, so give one archive with it")
    if name and _path(sources[0]) is None:
        raise click.UsageError("--as is for archives; `images promote` gives a pulled image another name")

    async def work(parts: Parts) -> list[Imported]:
        importer = await parts.importer()
        with progress() as shown:
            return await importer.import_many(
                [_item(source, name) for source in sources],
                push=push,
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
        context.exit(max(result.error.exit_status for result in failed if result.error))


@images.command()
@click.argument("source", metavar="CONTAINER|IMAGE")
@click.argument("reference", metavar="REFERENCE")
@click.option(
    "--change", "changes", multiple=True, metavar="INSTRUCTION", help="Such as 'CMD [\"nginx\"]'; again for more."
)
@click.option("--image", "as_image", is_flag=True, help="SOURCE is an image, even if a container has that name.")
@_push_choice
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
    as_json: bool,
) -> None:
    """Make an image of what a container became, or give an image another name.

    \b
    Examples:
      cyroid-images images promote my-container web:configured --change 'CMD ["nginx"]'
      cyroid-images images promote --image web:1.0 web:stable
    """

    async def work(parts: Parts) -> ImageAppeared:
        from services.errors import BadInput, NotFound

        service = await parts.promote()
        if as_image:
            if changes:
                raise BadInput("--change changes what a container became; another name for an image changes nothing")
            return await service.promote_image(source, reference=reference, push=push)
        try:
            return await service.promote_container(source, reference=reference, changes=changes, push=push)
        except NotFound as problem:
            raise NotFound(f"{problem}; if {source} is an image, say --image") from problem

    _print_images([run(context, work)], as_json)


@images.command("ls")
@json_flag
@click.pass_context
def list_(context: click.Context, /, *, as_json: bool) -> None:
    """List the images of the host's engine and whether the registry has exactly that content."""

    async def work(parts: Parts) -> list[dict[str, Any]]:
        from services.inventory import host_images

        return await host_images(await parts.host_engine(), await parts.registry())

    rows = run(context, work)
    if as_json:
        print_json({"items": rows})
        return
    print_table(
        ("REFERENCE", "IMAGE ID", "SIZE", "REGISTRY"),
        [
            (row["reference"], (row["image_id"] or row["local_id"])[7:19], size(row["size_bytes"]), row["registry"])
            for row in rows
        ],
    )


def _print_images(found: Sequence[ImageAppeared], as_json: bool) -> None:
    if as_json:
        print_json({"items": found})
        return
    for image in found:
        click.echo(f"{image.image_id} {image.reference}")


def _pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` for the value that this process' environment has, as the docker client does it."""
    import os

    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise click.UsageError(f"{flag} {text!r} is not NAME=VALUE")
        if equals:
            pairs[name] = value
        elif name in os.environ:
            pairs[name] = os.environ[name]
    return pairs


def _path(source: str) -> Path | None:
    """The file that `source` means, None where it is a reference."""
    path = Path(source)
    if source == "-" or path.is_file() or source.startswith(("./", "../", "/")) or source.endswith(_ARCHIVE_ENDINGS):
        return path
    return None


def _item(source: str, name: str | None) -> Archive | str:
    from services.adapters.files import file_chunks, stdin_chunks
    from services.importer import Archive
    from services.unpacking import unpacked

    path = _path(source)
    if path is None:
        return source
    origin = "standard input" if source == "-" else path.name
    chunks = stdin_chunks() if source == "-" else file_chunks(path)
    return Archive(chunks=unpacked(chunks, source), origin=origin, reference=name)
