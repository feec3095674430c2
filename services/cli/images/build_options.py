"""The values of `images build`'s options, as `docker buildx build` writes them, and the build they lead to."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from services.cli.command_group import user

if TYPE_CHECKING:
    from events.messages import ImageAppeared, Push
    from services.core.builds.options import Builder, BuildOptions, Network
    from services.resources import Resources

#: BuildKit takes no larger secret (buildkit: `session/secrets`).
_SECRET_LIMIT_BYTES = 500 * 1024


def pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` for the value that this process' environment has, as the docker client does it."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise click.UsageError(f"{flag} {text!r} is not NAME=VALUE")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def read_secrets(texts: Sequence[str]) -> dict[str, bytes]:
    """`id=NAME,src=PATH` or `id=NAME,env=VARIABLE`; `id=NAME` alone is the variable NAME, else the file NAME."""
    found = {}
    for text in texts:
        given = _fields(text, "--secret")
        name = given.pop("id", "")
        path = given.pop("src", given.pop("source", ""))
        variable = given.pop("env", "")
        given.pop("type", None)
        if not name or given or (path and variable):
            raise click.UsageError("a --secret is written id=NAME,src=PATH or id=NAME,env=VARIABLE")
        if not path and not variable:
            path, variable = ("", name) if name in os.environ else (name, "")
        found[name] = _environment(variable, name) if variable else _file(path, name)
    return found


def caches_inline(texts: Sequence[str]) -> bool:
    """Whether a cache is written into the image. The engine's interface can write none elsewhere."""
    for text in texts:
        kind = text if text == "inline" else _fields(text, "--cache-to").get("type")
        if kind != "inline":
            raise click.UsageError(
                f"--cache-to {text!r}: the engine writes a cache into the image only; give --cache-to type=inline"
            )
    return bool(texts)


def caches(texts: Sequence[str]) -> tuple[str, ...]:
    """`REFERENCE` or `type=registry,ref=REFERENCE`."""
    found = []
    for text in texts:
        if "=" not in text:
            found.append(text)
            continue
        given = _fields(text, "--cache-from")
        if given.get("type", "registry") != "registry" or not given.get("ref"):
            raise click.UsageError(f"--cache-from {text!r} is neither a REFERENCE nor type=registry,ref=REFERENCE")
        found.append(given["ref"])
    return tuple(found)


def _fields(text: str, flag: str) -> dict[str, str]:
    found = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            raise click.UsageError(f"{flag} {part!r} is not KEY=VALUE")
        found[name.strip().lower()] = value
    return found


def _environment(variable: str, name: str) -> bytes:
    if variable not in os.environ:
        raise click.UsageError(f"--secret {name}: the environment has no {variable}")
    return os.environb[os.fsencode(variable)]


def _file(path: str, name: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_SECRET_LIMIT_BYTES + 1)
    except OSError as problem:
        raise click.UsageError(f"--secret {name}: cannot read {path}: {problem.strerror or problem}") from problem
    if len(content) > _SECRET_LIMIT_BYTES:
        raise click.UsageError(f"--secret {name}: {path} is larger than {_SECRET_LIMIT_BYTES} bytes")
    return content


def read(
    *,
    target: str,
    build_args: Sequence[str],
    labels: Sequence[str],
    secrets: Sequence[str],
    cache_from: Sequence[str],
    cache_to: Sequence[str],
    platform: str | None,
    network: Network,
    builder: Builder,
    pull: bool,
    no_cache: bool,
) -> BuildOptions:
    """All options together, before the Dockerfile is found. Raises UsageError for one that is written wrongly."""
    from services.core.builds.options import BuildOptions

    return BuildOptions(
        target=target,
        build_args=pairs(build_args, "--build-arg"),
        labels=pairs(labels, "--label"),
        secrets=read_secrets(secrets),
        cache_from=caches(cache_from),
        inline_cache=caches_inline(cache_to),
        platform=platform,
        network=network,
        builder=builder,
        pull=pull,
        no_cache=no_cache,
    )


class ContextSource(NamedTuple):
    """The context that the caller named: a folder, a file, a tar or `-`, and a Dockerfile in it."""

    path: str
    dockerfile: str | None


async def build(
    resources: Resources,
    source: ContextSource,
    reference: str,
    options: BuildOptions,
    *,
    push: Push,
    on_line: Callable[[str], None],
) -> ImageAppeared:
    """The build with its context opened and its Dockerfile found."""
    from services.adapters.build_context import open_context

    opened = open_context(source.path, source.dockerfile)
    service = await resources.build()
    return await service.build(
        opened.chunks(),
        reference=reference,
        origin=opened.origin,
        options=dataclasses.replace(options, dockerfile=opened.dockerfile),
        push=push,
        on_line=on_line,
        actor=user(),
    )
