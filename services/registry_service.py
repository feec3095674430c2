"""The registry for Python code of other CYROID services: push, list, inspect, count.

Consumes nothing; publishes `image.pushed.v1` to the images stream after a push, for roles that wait for the image. Like
the command line it uses what `services.resources` opens:

    async with RegistryService.open() as registry:
        await registry.ensure_image_in_registry("kali:2026", progress_callback=print)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import msgspec

from events.bus import BusClient, BusError
from events.envelope import Envelope, new_id
from events.messages import ImagePushed
from events.streams import Streams
from services.adapters.openers import REAL, Adapters
from services.core.images.references import Reference
from services.errors import BadInput, EngineUnavailable, NotFound, of_bus
from services.ports import PlainDict, Registry
from services.queries import images as inventory
from services.queries.statistics import Statistics
from services.registry_pusher.image_push import ImagePush
from services.registry_pusher.layer_encodings import LayerEncodings
from services.registry_pusher.outcome import pushed_outcome
from services.registry_pusher.progress import ProgressCounters
from services.registry_pusher.recorded_push import Phase, recorded_push
from services.runtime.callbacks import guarded
from services.runtime.telemetry import get_logger

if TYPE_CHECKING:
    from services.settings import Settings

log = get_logger(role="registry-service")
#: Called with `reference`, `phase` (checking, sending, done), `percent`, and bytes and layers, done and in all.
ProgressCallback = Callable[[PlainDict], None]


class RegistryService:
    """The public API. Errors are `services.errors`. A call that returns has done what it says.

    It belongs to the event loop that opened it, as its connections do, and refuses calls from another one; code with
    several loops uses `clients/python`, over HTTP. A progress callback that raises is logged, and not called again.
    """

    def __init__(
        self,
        *,
        push: ImagePush,
        registry: Registry,
        encodings: LayerEncodings,
        statistics: Statistics,
        bus: BusClient,
        streams: Streams,
        source: str,
    ) -> None:
        self._push = push
        self._registry = registry
        self._encodings = encodings
        self._statistics = statistics
        self._bus = bus
        self._streams = streams
        self._source = source
        self._loop: asyncio.AbstractEventLoop | None = None

    def _check_loop(self) -> None:
        """Connections belong to the loop that opened them: used in another one, they would fail in strange ways."""
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if loop is not self._loop:
            raise BadInput(
                "this RegistryService was opened in another event loop: open one in this loop, or hand the call to its"
                " own with asyncio.run_coroutine_threadsafe(coroutine, loop)",
                code="wrong_event_loop",
            )

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings | None = None, adapters: Adapters = REAL) -> AsyncIterator[Self]:
        """Composed by the settings, those of the environment if none are given. Leaving closes all connections."""
        from services.resources import open_resources
        from services.runtime.environment import read_settings

        async with open_resources(settings or read_settings(os.environ), adapters) as resources:
            registry = await resources.registry()
            service = cls(
                push=await resources.image_push(),
                registry=registry,
                encodings=await resources.layer_encodings(),
                statistics=Statistics(registry=registry, storage=resources.settings.registry_storage),
                bus=await resources.bus(),
                streams=resources.streams,
                source=resources.source("registry-service"),
            )
            service._loop = asyncio.get_running_loop()
            yield service

    async def push_image(self, image_tag: str, progress_callback: ProgressCallback | None = None) -> bool:
        """Push what the host's engine has under a name; what the registry has already is not sent.

        Returns True. Raises NotFound if the host's engine has no such image, BadReference, Unavailable and what else
        `services.registry_pusher.image_push` may.
        """
        self._check_loop()
        reference = Reference.parse(image_tag).familiar
        tell = guarded(progress_callback, f"the progress of {reference}")
        correlation_id = new_id()

        def report(counters: ProgressCounters, phase: Phase) -> None:
            if phase != "failed":  # the caller gets that as an error
                tell(_progress(reference, phase, counters))

        async def remember(pushed: ImagePushed) -> None:
            await self._remember(pushed, correlation_id)

        try:
            await recorded_push(
                self._push,
                image_tag,
                log=log,
                correlation_id=correlation_id,
                source=self._source,
                report=report,
                keep=remember,
            )
        except BusError as unavailable:
            raise of_bus(unavailable) from unavailable
        return True

    async def image_exists(self, image_tag: str) -> bool:
        """Whether the registry has something under this name. What exactly, `ensure_image_in_registry` looks after."""
        self._check_loop()
        reference = Reference.parse(image_tag)
        try:
            return await self._registry.manifest(reference.repository, reference.registry_tag) is not None
        except BadInput:
            return True  # an index, or what some other program left there

    async def ensure_image_in_registry(self, image_tag: str, progress_callback: ProgressCallback | None = None) -> bool:
        """As `push_image`: a tag that was rebuilt is pushed again. Enough is also what only the registry has.

        A host's engine that is unavailable has no say, so what the registry has is enough then as well.
        """
        try:
            return await self.push_image(image_tag, progress_callback)
        except (NotFound, EngineUnavailable):
            if await self.image_exists(image_tag):
                reference = Reference.parse(image_tag).familiar
                tell = guarded(progress_callback, f"the progress of {reference}")
                tell(_progress(reference, "done", ProgressCounters()))
                return True
            raise

    async def list_images(self) -> list[PlainDict]:
        """One entry per repository: `name`, `tags`, and `images` with digest, image id and size for each tag."""
        self._check_loop()
        listed: dict[str, PlainDict] = {}
        for row in await inventory.registry_images(self._registry):
            entry = listed.setdefault(row.repository, {"name": row.repository, "tags": [], "images": []})
            entry["tags"].append(row.tag)
            entry["images"].append(msgspec.to_builtins(row))
        return list(listed.values())

    async def get_stats(self) -> PlainDict:
        """Images, repositories, space used, space saved by sharing, health (`services.queries.statistics`)."""
        self._check_loop()
        counted: PlainDict = msgspec.to_builtins(await self._statistics.get())
        return counted

    def get_registry_tag(self, image_tag: str) -> str:
        """The name under which ranges pull the image: `cyroid-registry:5000/library/nginx:1.27`."""
        reference = Reference.parse(image_tag)
        return f"{self._registry.address}/{reference.repository}:{reference.registry_tag}"

    async def _remember(self, pushed: ImagePushed, correlation_id: str) -> None:
        said = Envelope(message=pushed, source=self._source, subject=pushed.reference, correlation_id=correlation_id)
        await self._bus.commit(pushed_outcome(pushed, said, streams=self._streams, encodings=self._encodings))


def _progress(reference: str, phase: str, counters: ProgressCounters) -> PlainDict:
    percent = 100.0 if phase == "done" else round(100 * counters.done_bytes / (counters.total_bytes or 1), 1)
    return {
        "reference": reference,
        "phase": phase,
        "percent": percent,
        "done_bytes": counters.done_bytes,
        "total_bytes": counters.total_bytes,
        "layers_done": counters.layers_done,
        "layers_total": counters.layers_total,
    }
