"""The registry for Python code of other CYROID services: push, look, list, count.

Consumes nothing; emits `image.pushed.v1` to the images stream after a push, so that whoever waits for the image hears
of it. Like the command line it is a door to what `services.parts` opens:

    async with RegistryService.open() as registry:
        await registry.ensure_image_in_registry("kali:2026", progress_callback=print)
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import msgspec

from events.bus import BusError, Speaker
from events.envelope import Envelope, new_id
from events.messages import ImagePushed
from events.streams import Streams
from services import inventory
from services.core.references import Reference
from services.errors import BadInput, CyroidError, EngineUnavailable, NotFound, RedisUnavailable
from services.ports import Registry
from services.pushing.ending import Account, pushed_outcome, whole
from services.pushing.image_push import ImagePush
from services.pushing.layer_forms import LayerForms
from services.pushing.tally import Tally
from services.statistics import Statistics
from services.telemetry import get_logger

if TYPE_CHECKING:
    from services.settings import Settings

log = get_logger(role="registry-service")
#: Called with `reference`, `phase` (checking, sending, done), `percent`, and bytes and layers, done and in all.
ProgressCallback = Callable[[dict[str, Any]], None]


class RegistryService:
    """Errors are `services.errors`: a call that returns has done what it says."""

    def __init__(
        self,
        *,
        push: ImagePush,
        registry: Registry,
        forms: LayerForms,
        statistics: Statistics,
        speaker: Speaker,
        streams: Streams,
        source: str,
    ) -> None:
        self._push = push
        self._registry = registry
        self._forms = forms
        self._statistics = statistics
        self._speaker = speaker
        self._streams = streams
        self._source = source

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings | None = None) -> AsyncIterator[Self]:
        """Composed by the settings, those of the environment if none are given. Leaving closes all connections."""
        from services.environment import read_settings
        from services.parts import open_parts

        async with open_parts(settings or read_settings(os.environ)) as parts:
            registry = await parts.registry()
            yield cls(
                push=await parts.image_push(),
                registry=registry,
                forms=await parts.layer_forms(),
                statistics=Statistics(registry=registry, storage=parts.settings.registry_storage),
                speaker=await parts.bus(),
                streams=parts.streams,
                source=parts.source("registry-service"),
            )

    async def push_image(self, image_tag: str, progress_callback: ProgressCallback | None = None) -> bool:
        """Push what the host's engine has under a name; what the registry has already is not sent.

        Returns True. Raises NotFound if the host's engine has no such image, BadReference, Unavailable and what else
        `services.pushing.image_push` may.
        """
        tell = progress_callback or _nobody
        reference = Reference.parse(image_tag).familiar
        tell(_progress(reference, "checking", Tally()))
        correlation_id = new_id()
        account = Account(log, reference, correlation_id)

        def changed(tally: Tally) -> None:
            account.changed(tally)
            tell(_progress(reference, "sending", tally))

        try:
            pushed = await self._push.push(image_tag, changed=changed)
            await self._remember(pushed, correlation_id)
        except BusError as away:
            problem = RedisUnavailable(f"{away}; start it or correct CYROID_REDIS_URL")
            account.failed(problem)
            raise problem from away
        except CyroidError as problem:
            account.failed(problem)
            raise
        account.ended(pushed)
        tell(_progress(reference, "done", whole(pushed)))
        return True

    async def image_exists(self, image_tag: str) -> bool:
        """Whether the registry has something under this name. What exactly, `ensure_image_in_registry` looks after."""
        reference = Reference.parse(image_tag)
        try:
            return await self._registry.manifest(reference.repository, reference.registry_tag) is not None
        except BadInput:
            return True  # an index, or what some other program left there

    async def ensure_image_in_registry(self, image_tag: str, progress_callback: ProgressCallback | None = None) -> bool:
        """As `push_image`: a tag that was rebuilt is pushed again. Enough is also what only the registry has.

        A host's engine that is away has no say, so what the registry has is enough then as well.
        """
        try:
            return await self.push_image(image_tag, progress_callback)
        except (NotFound, EngineUnavailable):
            if await self.image_exists(image_tag):
                (progress_callback or _nobody)(_progress(Reference.parse(image_tag).familiar, "done", Tally()))
                return True
            raise

    async def list_images(self) -> list[dict[str, Any]]:
        """One entry per repository: `name`, `tags`, and `images` with digest, image id and size for each tag."""
        listed: dict[str, dict[str, Any]] = {}
        for row in await inventory.registry_images(self._registry):
            entry = listed.setdefault(row["repository"], {"name": row["repository"], "tags": [], "images": []})
            entry["tags"].append(row["tag"])
            entry["images"].append(row)
        return list(listed.values())

    async def get_stats(self) -> dict[str, Any]:
        """Images, repositories, room used, room saved by sharing, health (`services.statistics`)."""
        counted: dict[str, Any] = msgspec.to_builtins(await self._statistics.get())
        return counted

    def get_registry_tag(self, image_tag: str) -> str:
        """The name under which ranges pull the image: `cyroid-registry:5000/library/nginx:1.27`."""
        reference = Reference.parse(image_tag)
        return f"{self._registry.address}/{reference.repository}:{reference.registry_tag}"

    async def _remember(self, pushed: ImagePushed, correlation_id: str) -> None:
        said = Envelope(message=pushed, source=self._source, subject=pushed.reference, correlation_id=correlation_id)
        await self._speaker.commit(pushed_outcome(pushed, said, streams=self._streams, forms=self._forms))


def _nobody(progress: dict[str, Any]) -> None:
    """Progress that nobody asked for."""


def _progress(reference: str, phase: str, tally: Tally) -> dict[str, Any]:
    percent = 100.0 if phase == "done" else round(100 * tally.done_bytes / (tally.total_bytes or 1), 1)
    return {
        "reference": reference,
        "phase": phase,
        "percent": percent,
        "done_bytes": tally.done_bytes,
        "total_bytes": tally.total_bytes,
        "layers_done": tally.layers_done,
        "layers_total": tally.layers_total,
    }
