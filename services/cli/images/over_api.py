"""Build, import and promote by the HTTP API: what is uploaded is streamed, and the record is followed to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from services.cli.command_group import complain
from services.cli.output import progress, talk
from services.cli.remote import ApiProblem, ask, full_url, send

if TYPE_CHECKING:
    from events.messages import Push
    from services.core.builds.options import BuildOptions
    from services.core.images.ingests import IngestedImage, IngestRecord
    from services.ports import Chunks

LOOK_SECONDS = 1.0
_TAR, _ANY = "application/x-tar", "application/octet-stream"
_ZIP = "application/zip"


async def build(
    api_url: str,
    context_path: str,
    *,
    dockerfile: str | None,
    reference: str,
    options: BuildOptions,
    push: Push,
    quiet: bool,
) -> list[IngestedImage]:
    """Build a context that is read here."""
    from services.adapters.build_context import open_context

    if options.secrets or options.inline_cache or options.network == "host":
        raise click.UsageError("secrets, --cache-to and --network host are for builds without --api")
    opened = open_context(context_path, dockerfile)
    query: list[tuple[str, str]] = [
        ("reference", reference),
        ("push", push),
        ("dockerfile", opened.dockerfile),
        ("target", options.target),
        ("platform", options.platform or ""),
        ("network", options.network),
        ("builder", options.builder),
        ("pull", str(options.pull).lower()),
        ("no_cache", str(options.no_cache).lower()),
        *(("build_arg", f"{name}={value}") for name, value in options.build_args.items()),
        *(("label", f"{name}={value}") for name, value in options.labels.items()),
        *(("cache_from", one) for one in options.cache_from),
    ]
    return await _upload(api_url, "images/build", query, opened.chunks(), _TAR, quiet=quiet)


async def import_each(
    api_url: str, sources: Sequence[tuple[str, Chunks | None]], name: str | None, push: Push
) -> tuple[list[IngestedImage], int]:
    """Import files (with their chunks) and references; the images, and the exit status of those that failed."""
    images: list[IngestedImage] = []
    status = 0
    for source, chunks in sources:
        try:
            if chunks is None:
                body = {"reference": source, "push": push}
                images += await _follow(api_url, await ask("POST", full_url(api_url, "images/import"), body=body))
            else:
                query = [("reference", name or ""), ("origin", source[-200:]), ("push", push)]
                kind = _ZIP if source.endswith(".zip") else _ANY
                images += await _upload(api_url, "images/import/archive", query, chunks, kind)
        except ApiProblem as problem:
            complain(str(problem))
            status = max(status, problem.entry.exit_status)
    return images, status


async def promote(
    api_url: str, source: str, reference: str, changes: Sequence[str], push: Push, *, is_image: bool
) -> list[IngestedImage]:
    """Make an image of a container, or give an image another name."""
    body: dict[str, Any] = {"reference": reference, "push": push, "image" if is_image else "container": source}
    if changes:
        body["changes"] = list(changes)
    return await _follow(api_url, await ask("POST", full_url(api_url, "images/promote"), body=body))


async def _upload(
    api_url: str,
    path: str,
    query: Sequence[tuple[str, str]],
    chunks: Chunks,
    content_type: str,
    *,
    quiet: bool = False,
) -> list[IngestedImage]:
    with progress() as shown:
        sent = 0

        async def counted() -> Chunks:
            nonlocal sent
            async for chunk in chunks:
                yield chunk
                sent += len(chunk)
                shown.show("upload", "sending", sent)

        asked = await send(full_url(api_url, path), query, counted(), content_type)
    return await _follow(api_url, asked, quiet=quiet)


async def _follow(api_url: str, asked: Any, *, quiet: bool = False) -> list[IngestedImage]:
    """Follow a record to its end, printing its log. Raises ApiProblem for one that failed."""
    record = _read(asked)
    told: tuple[str, ...] = ()
    while True:
        if not quiet:
            told = _print_new(told, record.log)
        if record.ended_at is not None:
            break
        await asyncio.sleep(LOOK_SECONDS)
        with contextlib.suppress(TimeoutError):
            record = _read(await ask("GET", full_url(api_url, f"ingests/{record.id}")))
    if record.error is not None:
        raise ApiProblem(record.error.message, code=record.error.code)
    return list(record.images)


def _print_new(told: tuple[str, ...], log: tuple[str, ...]) -> tuple[str, ...]:
    """Print the lines of `log`, the latest ones of a longer one, that were not told yet."""
    start = next((at for at in range(len(told) + 1) if told[at:] == log[: len(told) - at]), len(told))
    for line in log[len(told) - start :]:
        talk(line)
    return log


def _read(answer: Any) -> IngestRecord:
    import msgspec

    from services.core.images.ingests import IngestRecord
    from services.errors import BadInput

    try:
        return msgspec.convert(answer, IngestRecord)
    except msgspec.ValidationError as problem:
        raise BadInput(f"the API's answer is none of this version: {problem}") from problem
