"""What roles and commands are made of: the ports of one process, each opened once, when first asked for.

Imports are inside the functions, so that a command that needs only Redis does not load an HTTP client.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from events.lease import Bus
from events.streams import Streams
from services.ports import Engine, LayerSource, Registry
from services.settings import Settings

if TYPE_CHECKING:
    from events.preflight import Concern
    from services.announcing import Announcer
    from services.build import BuildService
    from services.importer import Importer
    from services.promote import PromoteService
    from services.pushing.image_push import ImagePush
    from services.pushing.layer_forms import LayerForms

T = TypeVar("T")


# ---- adapters: each of these opens one thing of the outside; tests put twins in their place ----------------------


def open_bus(settings: Settings) -> AbstractAsyncContextManager[Bus]:
    """The bus on Redis."""
    from events.redis_bus import RedisBus

    return RedisBus.open(
        settings.redis_url, streams=Streams(settings.key_prefix), limit_bytes=settings.entry_limit_bytes
    )


def open_engine(settings: Settings, url: str) -> AbstractAsyncContextManager[Engine]:
    """One Docker engine."""
    from services.adapters.engine import DockerEngine

    return DockerEngine.open(url, stall_seconds=settings.stall_seconds)


def open_registry(settings: Settings) -> AbstractAsyncContextManager[Registry]:
    """The registry, as this side writes to it."""
    from services.adapters.registry import HttpRegistry
    from services.adapters.registry_auth import Credentials

    return HttpRegistry.open(
        settings.registry_url,
        address=settings.registry_address,
        credentials=Credentials(
            username=settings.registry_username, password=settings.registry_password, token=settings.registry_token
        ),
        stall_seconds=settings.stall_seconds,
    )


# ---- what roles and commands are made of -------------------------------------------------------------------------


class Parts:
    """The opened ports of one process, each opened once, on demand."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.streams = Streams(settings.key_prefix)
        self.host = socket.gethostname()
        self._stack = stack
        self._opened: dict[str, Any] = {}
        self._sources: Sequence[LayerSource] | None = None

    async def _once(self, name: str, opening: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        if name not in self._opened:
            self._opened[name] = await self._stack.enter_async_context(opening())
        opened: T = self._opened[name]
        return opened

    def source(self, role: str) -> str:
        """The envelope's `source` for one role of this process: `build@host1`."""
        return f"{role}@{self.host}"

    async def bus(self) -> Bus:
        return await self._once("bus", lambda: open_bus(self.settings))

    async def concerns(self, stream: str | None = None) -> Sequence[Concern]:
        """What is wrong with the bus' server and with our rights on `stream`; nothing for a bus in memory."""
        from events.redis_bus import RedisBus

        bus = await self.bus()
        return await bus.preflight(stream) if isinstance(bus, RedisBus) else ()

    async def host_engine(self) -> Engine:
        return await self.engine(self.settings.host_engine_url)

    async def engine(self, url: str) -> Engine:
        return await self._once(f"engine {url}", lambda: open_engine(self.settings, url))

    def other_engine(self, url: str) -> AbstractAsyncContextManager[Engine]:
        """An engine that is not this process' own: closed when its user leaves."""
        return open_engine(self.settings, url)

    async def registry(self) -> Registry:
        return await self._once("registry", lambda: open_registry(self.settings))

    async def layer_sources(self) -> Sequence[LayerSource]:
        """Ways to read layers of the host's engine, best first; the same for all roles: each config is read once.

        What has to be unpacked on the way lies where exports lie, and not in a `/tmp` that may be memory.
        """
        from services.adapters.layer_sources import layer_sources

        if self._sources is None:
            root, scratch = self.settings.engine_root, Path(self.settings.spool_folder)
            engine = await self.host_engine()
            self._sources = layer_sources(engine, engine_root=Path(root) if root else None, scratch=scratch)
        return self._sources

    async def layer_forms(self) -> LayerForms:
        from services.pushing.layer_forms import LayerForms

        return LayerForms(speaker=await self.bus(), prefix=self.streams.prefix)

    async def image_push(self) -> ImagePush:
        from services.pushing.image_push import ImagePush
        from services.pushing.layer_push import LayerPush
        from services.pushing.range_codecs import all_ranges_read_zstd

        bus = await self.bus()
        sources = await self.layer_sources()
        return ImagePush(
            engine=await self.host_engine(),
            registry=await self.registry(),
            sources=sources,
            layers=LayerPush(
                registry=await self.registry(),
                sources=sources,
                forms=await self.layer_forms(),
                parallel_layers=self.settings.parallel_layers,
                layer_codec=self.settings.layer_codec,
                all_read_zstd=lambda: all_ranges_read_zstd(bus, self.streams.prefix),
            ),
            engine_registry=self.settings.registry_url.partition("://")[2].rstrip("/"),
        )

    async def announcer(self, role: str) -> Announcer:
        from services.announcing import Announcer

        return Announcer(
            engine=await self.host_engine(),
            speaker=await self.bus(),
            streams=self.streams,
            source=self.source(role),
            sources=await self.layer_sources(),
        )

    async def build(self) -> BuildService:
        from services.build import BuildService

        return BuildService(engine=await self.host_engine(), announcer=await self.announcer("build"))

    async def importer(self) -> Importer:
        from services.importer import Importer

        return Importer(engine=await self.host_engine(), announcer=await self.announcer("import"))

    async def promote(self) -> PromoteService:
        from services.promote import PromoteService

        return PromoteService(engine=await self.host_engine(), announcer=await self.announcer("promote"))


@asynccontextmanager
async def open_parts(settings: Settings) -> AsyncIterator[Parts]:
    """Nothing is opened yet; all that was is closed on leaving."""
    async with AsyncExitStack() as stack:
        yield Parts(settings, stack)
