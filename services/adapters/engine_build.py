"""Builds on a Docker engine: with BuildKit, and with the classic builder where BuildKit is turned off.

BuildKit is asked through the engine's own `POST /build?version=2` with the context as the request's body, so that
nothing but the engine is needed; a session (`build_session`) is opened for secrets alone. A build out of the cache took
0.1-0.4 s so and 0.3-0.7 s with `docker buildx`, a context of 300 MB the same time. That interface makes no attestations
and writes a cache into the image only.

The classic builder gets only what it can do: it would end with success having built something else
(`services.core.builds.dockerfile`). Leaving the context manager ends the build on the engine as well: the connection
closes, and BuildKit is told to cancel.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from services.adapters.build_session import build_session
from services.adapters.dockerfile_stream import with_checked_dockerfile
from services.adapters.engine_http import EngineConnection, image_name
from services.adapters.engine_progress import BuildLog
from services.adapters.engine_streams import LineStream
from services.core.builds.dockerfile import needs_buildkit
from services.core.builds.options import BuildOptions
from services.errors import BuildFailed, CyroidError, NoSpace
from services.ports import Chunks

_CANCEL_SECONDS = 5.0
_TURN_ON = 'turn it on there (in daemon.json: "features": {"buildkit": true}), or build with --builder buildkit'
#: An older engine's own Dockerfile frontend stops at the text of a here-document.
_OLD_FRONTEND = re.compile(r"dockerfile parse error line \d+: unknown instruction")
_NEWER_FRONTEND = (
    "; a here-document needs engine 23 or newer, or `# syntax=docker/dockerfile:1` as the first line of the Dockerfile"
)


@asynccontextmanager
async def build(
    connection: EngineConnection, context: Chunks, *, reference: str, options: BuildOptions, quiet_seconds: float
) -> AsyncIterator[AsyncIterator[str]]:
    """Build a tar `context` as `reference`; the iterator gives the log. Raises BuildFailed and an engine's errors."""
    what = f"build {reference}"
    params = _params(reference, options)
    async with AsyncExitStack() as stack:
        if await _has_buildkit(connection, options):
            build_id = uuid.uuid4().hex
            params |= {"version": "2", "buildid": build_id, "networkmode": await _network(connection, options)}
            if options.secrets:
                params["session"] = await stack.enter_async_context(
                    build_session(connection.address, options.secrets, shown_url=connection.url)
                )
            await stack.enter_async_context(_cancelled_on_error(connection, build_id))
        else:
            context = with_checked_dockerfile(context, options.dockerfile, _refusal(connection.url, options, what))
        stream = connection.stream(
            what,
            "POST",
            "build",
            params=params,
            body=context,
            asks_first=True,
            quiet_seconds=quiet_seconds,
            otherwise=BuildFailed,
        )
        reply = await stack.enter_async_context(stream)
        try:
            yield BuildLog(LineStream(reply, what, connection.url, otherwise=BuildFailed))
        except BuildFailed as problem:
            if _OLD_FRONTEND.search(str(problem)):
                raise BuildFailed(f"{problem}{_NEWER_FRONTEND}") from problem
            raise


def _params(reference: str, options: BuildOptions) -> dict[str, str]:
    arguments = dict(options.build_args)
    if options.inline_cache:
        arguments["BUILDKIT_INLINE_CACHE"] = "1"
    params = {
        "t": image_name(reference),
        "dockerfile": options.dockerfile,
        "rm": "1",
        "forcerm": "1",
        "pull": "1" if options.pull else "0",
        "nocache": "1" if options.no_cache else "0",
        "buildargs": msgspec.json.encode(arguments).decode(),
        "labels": msgspec.json.encode(options.labels).decode(),
        "cachefrom": msgspec.json.encode([image_name(one) for one in options.cache_from]).decode(),
        "networkmode": options.network,
    }
    optional = {"target": options.target, "platform": options.platform}
    return params | {name: value for name, value in optional.items() if value}


async def _has_buildkit(connection: EngineConnection, options: BuildOptions) -> bool:
    """Whether to build with BuildKit: an engine whose configuration turns it off says `Builder-Version: 1`."""
    if options.builder != "auto":
        return options.builder == "buildkit"
    async with connection.call("ping") as docker, docker.session.get(f"{docker.docker_host}/_ping") as answer:
        return answer.headers.get("Builder-Version") != "1"


async def _network(connection: EngineConnection, options: BuildOptions) -> str:
    """The network of a build's steps. An engine without its bridge (`--bridge=none`) builds without one, as the classic
    builder does: BuildKit would refuse every step ("network bridge not found")."""
    if options.network != "default":
        return options.network
    async with connection.call("look at the bridge") as docker:
        url = f"{docker.docker_host}/{docker.api_version}/networks/bridge"
        async with docker.session.get(url) as answer:
            return "none" if answer.status == 404 else "default"


def _refusal(url: str, options: BuildOptions, what: str) -> Callable[[str], None]:
    """Raises BuildFailed for a Dockerfile, or options, that the classic builder would take for something else."""

    def check(dockerfile: str) -> None:
        needs = [*options.needs_buildkit(), *needs_buildkit(dockerfile, options.build_args)]
        if needs:
            asked = "it was asked for" if options.builder == "classic" else "the engine's BuildKit is turned off"
            raise BuildFailed(
                f"{what}: the classic builder ({asked} at {url}) cannot do {'; '.join(needs)}: {_TURN_ON}",
                code="needs_buildkit",
            )

    return check


@asynccontextmanager
async def _cancelled_on_error(connection: EngineConnection, build_id: str) -> AsyncIterator[None]:
    """End what a build left early, or failed, still does: a step runs on where a proxy keeps the connection."""
    try:
        yield
    except BaseException as problem:
        await _post(connection, "build/cancel", id=build_id)
        if isinstance(problem, NoSpace):
            # BuildKit keeps the context, and what the build had made, as cache on the very disk that is full. Where not
            # one block is left it cannot even let go of it: that is for whoever makes room.
            await _post(connection, "build/prune", all="1")
        raise


async def _post(connection: EngineConnection, path: str, **params: str) -> None:
    """Ask for something that may fail: the build's own error is the one to tell."""
    with contextlib.suppress(CyroidError, TimeoutError):
        async with connection.call(path, seconds=_CANCEL_SECONDS) as docker:
            url = f"{docker.docker_host}/{docker.api_version}/{path}"
            await (await docker.session.post(url, params=params)).release()
