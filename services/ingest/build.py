"""Builds images on the host's engine.

Consumes no stream (it is called in the process of its caller); publishes `image.built.v1` to the images stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from events.messages import ImageAppeared, ImageBuilt, Push
from services.core.builds.options import BuildOptions
from services.core.closing import closing
from services.errors import BadInput
from services.ingest.announcer import Announcer, target_reference
from services.ingest.base_images import BaseImages
from services.ports import Chunks, Engine
from services.runtime.callbacks import guarded


class BuildService:
    """Builds an image from a context, and publishes the event. `bases` brings back what the host's engine lacks."""

    def __init__(
        self, *, engine: Engine, announcer: Announcer, context_limit_bytes: int, bases: BaseImages | None = None
    ) -> None:
        self._engine = engine
        self._announcer = announcer
        self._bases = bases
        self._limit_bytes = context_limit_bytes

    async def build(
        self,
        context: Chunks,
        *,
        reference: str,
        origin: str,
        options: BuildOptions | None = None,
        push: Push = "auto",
        on_line: Callable[[str], None] = lambda line: None,
        correlation_id: str = "",
        actor: str = "",
    ) -> ImageAppeared:
        """Build the tar `context`; every line of the engine's log goes to `on_line` as it comes.

        Raises BadReference, BadInput for a context that is too large, BuildFailed, NoSpace, EngineUnavailable,
        RedisUnavailable.
        """
        name = target_reference(reference)
        tell = guarded(on_line, f"the build log of {name}")
        await self._announcer.check()
        asked = options or BuildOptions()
        bounded: Chunks = _bounded(context, self._limit_bytes)
        if self._bases is not None and not asked.pull:
            bounded = self._bases.before(bounded, asked.dockerfile, asked.build_args, tell)
        async with self._engine.build(bounded, reference=name, options=options) as lines:
            async for line in lines:
                tell(line)
        return await self._announcer.announce(
            ImageBuilt, name, origin=origin, push=push, correlation_id=correlation_id, actor=actor
        )


async def _bounded(context: Chunks, limit_bytes: int) -> AsyncIterator[bytes]:
    """The context, up to the limit: a stream, or a folder with a disk in it, may be of any size."""
    sent_bytes = 0
    async with closing(context):
        async for chunk in context:
            sent_bytes += len(chunk)
            if sent_bytes > limit_bytes:
                raise BadInput(
                    f"the build context has more than {limit_bytes} bytes: leave out what the build does not need"
                    " (.dockerignore), or raise CYROID_BUILD_CONTEXT_LIMIT_BYTES",
                    code="too_large",
                )
            yield chunk
