"""Base images of a build that were freed from the host's engine: brought back from the registry before the build.

An engine asks upstream for what it does not have, where a class without a network has nothing, and where another
content may be under the name. The registry-pusher brings the image back, as for `images fetch`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from events.bus import BusClient, BusError
from events.messages import FetchRequested
from events.records import load_values
from events.streams import Streams
from services.commands.host_images import fetched
from services.commands.request_reply import RequestReplyClient
from services.core.builds.base_images import base_images
from services.core.images.read_model import ReadModelKeys
from services.errors import BadInput, BuildFailed, EngineUnavailable
from services.ports import Chunks, Engine
from services.runtime.heartbeat import serving
from services.runtime.host_identity import HostIdentity

#: How long one image may take; the engine waits so long for the rest of the context.
WITHIN_SECONDS = 1500.0
#: Gives a context on, and its Dockerfile to a function as it passes.
ReadDockerfile = Callable[[Chunks, str, Callable[[str], Awaitable[None]]], Chunks]


class BaseImages:
    """Brings base images back. `read_dockerfile` finds the Dockerfile in a context that streams by."""

    def __init__(
        self,
        *,
        engine: Engine,
        bus: BusClient,
        streams: Streams,
        source: str,
        read_dockerfile: ReadDockerfile,
        identity: HostIdentity | None = None,
    ) -> None:
        self._identity = identity
        self._engine = engine
        self._bus = bus
        self._streams = streams
        self._ask = RequestReplyClient(bus=bus, streams=streams, source=source, within_seconds=WITHIN_SECONDS)
        self._read_dockerfile = read_dockerfile

    def before(
        self, context: Chunks, dockerfile: str, build_args: Mapping[str, str], tell: Callable[[str], None]
    ) -> Chunks:
        """The context, held up where its Dockerfile names what has to come first. Its reader gets BuildFailed for an
        image that the registry has, and that cannot be brought back."""

        async def bring(content: str) -> None:
            for reference in await self._missing(base_images(content, build_args)):
                tell(f"bringing {reference} back from the registry")
                await self._bring(reference)

        return self._read_dockerfile(context, dockerfile, bring)

    async def _missing(self, references: tuple[str, ...]) -> list[str]:
        """What the engine lacks and the registry has, by the read model; nothing while Redis is unavailable."""
        lacking = [one for one in references if await self._engine.inspect(one) is None]
        keys = ReadModelKeys(self._streams.prefix)
        try:
            entries = await load_values(self._bus, [keys.image(one) for one in lacking])
        except BusError:
            return []
        return [entry.reference for entry in entries if entry.kind == "image"]

    async def _bring(self, reference: str) -> None:
        try:
            if "registry-pusher" not in await serving(self._bus, self._streams.prefix):
                raise BadInput("no process serves the role registry-pusher (cyroid-images serve registry-pusher)")
            host = await self._identity.get() if self._identity is not None else None
            answer = await fetched(self._ask, FetchRequested(reference=reference, host=host))
        except (BadInput, EngineUnavailable, BusError) as problem:
            raise _not_fetched(reference, str(problem)) from problem
        if not answer.ended:
            raise _not_fetched(reference, f"no answer within {WITHIN_SECONDS:.0f} seconds")


def _not_fetched(reference: str, why: str) -> BuildFailed:
    return BuildFailed(
        f"the build begins with {reference}, which the registry has and the host's engine has no more, and it could not"
        f" be brought back: {why}; bring it back first: cyroid-images images fetch {reference}",
        code="base_not_fetched",
    )
