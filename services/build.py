"""Builds images on the host's engine.

Consumes nothing (the CLI and the API call it); emits `image.built.v1` to the images stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from events.messages import ImageAppeared, ImageBuilt, Push
from services.announcing import Announcer, target_reference
from services.ports import Chunks, Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What `docker build` calls --file, --build-arg, --label, --platform, --pull and --no-cache."""

    dockerfile: str = "Dockerfile"
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str | None = None
    pull: bool = False
    no_cache: bool = False


class BuildService:
    """Context in, image and event out."""

    def __init__(self, *, engine: Engine, announcer: Announcer) -> None:
        self._engine = engine
        self._announcer = announcer

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
    ) -> ImageAppeared:
        """Build the tar `context`; every line of the engine's log goes to `on_line` as it comes.

        Raises BadReference, BuildFailed, NoSpace, EngineUnavailable, RedisUnavailable.
        """
        name = target_reference(reference)
        chosen = options or BuildOptions()
        await self._announcer.check()
        async with self._engine.build(
            context,
            reference=name,
            dockerfile=chosen.dockerfile,
            build_args=chosen.build_args,
            labels=chosen.labels,
            platform=chosen.platform,
            pull=chosen.pull,
            no_cache=chosen.no_cache,
        ) as lines:
            async for line in lines:
                on_line(line)
        return await self._announcer.announce(ImageBuilt, name, origin=origin, push=push, correlation_id=correlation_id)
