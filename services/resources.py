"""Resources of roles and commands: the ports of one process, each opened once, when first needed.

`services.adapters.openers` opens them; whoever composes may give others.

Imports are inside the functions, so that a command that needs only Redis does not load an HTTP client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from events.envelope import Envelope
from events.lease import Bus
from events.messages import CheckRequested
from events.streams import Streams
from services.adapters.openers import REAL, Adapters
from services.errors import BadInput
from services.ports import Engine, LayerMounts, LayerPlacer, LayerSource, Registry
from services.settings import Settings

if TYPE_CHECKING:
    from events.redis.connections import Connections
    from events.redis.preflight import Concern
    from services.ingest.announcer import Announcer
    from services.ingest.build import BuildService
    from services.ingest.importer import Importer
    from services.ingest.promote import PromoteService
    from services.registry_pusher.host_images import HostImages
    from services.registry_pusher.host_presence import HostPresence
    from services.registry_pusher.host_routing import HostRouting
    from services.registry_pusher.image_push import ImagePush
    from services.registry_pusher.layer_encodings import LayerEncodings
    from services.registry_pusher.range_push import RangePush
    from services.runtime.host_identity import HostIdentity

T = TypeVar("T")


class Resources:
    """The opened ports of one process, each opened once, on demand."""

    def __init__(self, settings: Settings, adapters: Adapters, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.adapters = adapters
        self.streams = Streams(settings.key_prefix)
        self._stack = stack
        #: Any: what is kept under a name is of the type that `_once` was asked for under it.
        self._opened: dict[str, Any] = {}
        self._sources: Sequence[LayerSource] | None = None
        self._identity: HostIdentity | None = None

    async def _once(self, name: str, opening: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        if name not in self._opened:
            self._opened[name] = await self._stack.enter_async_context(opening())
        opened: T = self._opened[name]
        return opened

    def source(self, role: str) -> str:
        """The envelope's `source` for one role of this process: `build@host1`."""
        return f"{role}@{self.adapters.host}"

    @property
    def process(self) -> str:
        """The name of this process: `host1.4711`."""
        return f"{self.adapters.host}.{self.adapters.pid}"

    async def bus(self) -> Bus:
        return await self._once("bus", lambda: self.adapters.bus(self.settings))

    async def concerns(self, stream: str | None = None) -> Sequence[Concern]:
        """Problems of the bus's server and of our rights on `stream`; none for a bus in memory."""
        return await self.adapters.check_bus(await self.bus(), stream)

    async def connections(self) -> Connections | None:
        """Connections of the bus's server; None for a bus in memory, and where they cannot be counted."""
        return await self.adapters.bus_connections(await self.bus())

    async def host_engine(self) -> Engine:
        return await self.engine(self.settings.host_engine_url)

    def identity(self) -> HostIdentity:
        """Who this host is. Raises BadInput for a file that holds no id."""
        if self._identity is None:
            from services.runtime.host_identity import HostIdentity

            chosen, folder = self.settings.host_id, self.settings.data_folder
            self._identity = HostIdentity(chosen=chosen, folder=folder, engine=self.host_engine)
        return self._identity

    async def host_routing(self) -> HostRouting:
        from services.registry_pusher.host_routing import HostRouting

        return HostRouting(bus=await self.bus(), streams=self.streams, identity=self.identity())

    async def host_presence(self) -> HostPresence:
        from services.adapters.files import disk_space
        from services.registry_pusher.host_look import HostLook
        from services.registry_pusher.host_presence import HostPresence

        engine, folder = await self.host_engine(), self.settings.engine_root
        return HostPresence(
            bus=await self.bus(),
            streams=self.streams,
            identity=self.identity(),
            engine=engine,
            look=HostLook(engine, await self.layer_sources()),
            machine=self.adapters.host,
            clock=self.adapters.clock,
            tar_url=self.settings.tar_url,
            space=lambda: disk_space(folder) if folder else None,
            free_percent=self.settings.store_free_percent,
            source=self.source("registry-pusher"),
            lease_seconds=self.settings.lease_seconds,
        )

    async def engine(self, url: str) -> Engine:
        return await self._once(f"engine {url}", lambda: self.adapters.engine(self.settings, url))

    def opened_dependencies(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """The engine and the registry that this process has opened so far, as dependencies that can be asked."""
        names = {
            f"engine {self.settings.host_engine_url}": "engine",
            f"engine {self.settings.engine_url}": "engine",
            "registry": "registry",
        }
        return {name: self._opened[key].ping for key, name in names.items() if key in self._opened}

    def other_engine(self, url: str) -> AbstractAsyncContextManager[Engine]:
        """An engine that is not this process' own: closed when its user leaves."""
        return self.adapters.engine(self.settings, url)

    async def registry(self) -> Registry:
        return await self._once("registry", lambda: self.adapters.registry(self.settings))

    async def layer_sources(self) -> Sequence[LayerSource]:
        """The layer sources of the host's engine, best first; shared by all roles, so that each config is read once."""
        if self._sources is None:
            self._sources = self.adapters.layer_sources(self.settings, await self.host_engine())
        return self._sources

    async def layer_placer(self) -> LayerPlacer | None:
        """How this range's engine takes mounted layers; None where the host shows none."""
        return self.adapters.layer_placer(self.settings, await self.engine(self.settings.engine_url))

    def layer_mounts(self) -> LayerMounts:
        """Mounts of this host, from the registry's storage."""
        return self.adapters.layer_mounts(self.settings)

    async def layer_encodings(self) -> LayerEncodings:
        from services.registry_pusher.layer_encodings import LayerEncodings

        return LayerEncodings(bus=await self.bus(), prefix=self.streams.prefix)

    async def announcing_registry(self) -> Registry:
        """The registry as everything that pushes uses it: a collection knows what it relies on."""
        from services.registry_pusher.intents import AnnouncingRegistry

        return AnnouncingRegistry(
            await self.registry(),
            bus=await self.bus(),
            prefix=self.streams.prefix,
            clock=lambda: self.adapters.clock().timestamp(),
        )

    async def image_push(self) -> ImagePush:
        from services.registry_pusher.damage import BlobSizes
        from services.registry_pusher.image_push import ImagePush
        from services.registry_pusher.layer_push import LayerPush
        from services.registry_pusher.range_codecs import all_ranges_read_zstd

        bus = await self.bus()
        sources = await self.layer_sources()
        registry = await self.announcing_registry()

        async def report_damage(digest: str) -> None:
            asked = Envelope(
                message=CheckRequested(digests=(digest,)), source=self.source("registry-pusher"), subject="registry"
            )
            await bus.publish(self.streams.images, asked)

        sizes = BlobSizes(registry, report_damage)
        return ImagePush(
            engine=await self.host_engine(),
            registry=registry,
            sources=sources,
            sizes=sizes,
            layers=LayerPush(
                registry=registry,
                sources=sources,
                encodings=await self.layer_encodings(),
                parallel_layers=self.settings.parallel_layers,
                layer_codec=self.settings.layer_codec,
                all_read_zstd=lambda: all_ranges_read_zstd(bus, self.streams.prefix),
                sizes=sizes,
            ),
            engine_registry=self.settings.registry_place().authority,
        )

    async def range_push(self) -> RangePush:
        from services.registry_pusher.range_push import RangePush
        from services.registry_pusher.range_uploads import RangeUploads

        bus, source, settings = await self.bus(), self.source("agent-pool"), self.settings
        listen, url = settings.upload_listen, settings.upload_url
        return RangePush(
            bus=bus,
            streams=self.streams,
            source=source,
            registry=await self.announcing_registry(),
            encodings=await self.layer_encodings(),
            open_engine=self.other_engine,
            saved_layers=lambda engine, limit_bytes: self.adapters.saved_layers(settings, engine, limit_bytes),
            engine_networks=settings.engine_networks,
            uploads=RangeUploads(bus=bus, streams=self.streams, source=source, listen=listen, url=url)
            if listen
            else None,
            host=self.identity().known or "",
            lease_seconds=settings.lease_seconds,
        )

    async def host_images(self) -> HostImages:
        from services.registry_pusher.adoption import HostAdoption, RegistryAdoption
        from services.registry_pusher.host_images import HostImages
        from services.registry_pusher.host_reclaim import HostReclaim

        engine, bus, prefix = await self.host_engine(), await self.bus(), self.streams.prefix
        registry, push = await self.announcing_registry(), await self.image_push()
        sources, encodings = await self.layer_sources(), await self.layer_encodings()
        authority = self.settings.registry_place().authority
        return HostImages(
            host=HostAdoption(engine=engine, registry=registry, push=push, sources=sources, encodings=encodings),
            registry=RegistryAdoption(registry=registry, bus=bus, prefix=prefix),
            reclaim=HostReclaim(engine=engine, registry=registry, push=push, engine_registry=authority),
            bus=bus,
            streams=self.streams,
            source=self.source("registry-pusher"),
            hosts=await self.host_routing(),
            lease_seconds=self.settings.lease_seconds,
        )

    async def announcer(self, role: str) -> Announcer:
        from services.ingest.announcer import Announcer

        return Announcer(
            engine=await self.host_engine(),
            bus=await self.bus(),
            streams=self.streams,
            source=self.source(role),
            sources=await self.layer_sources(),
            identity=self.identity(),
        )

    async def build(self) -> BuildService:
        from services.adapters.dockerfile_stream import with_checked_dockerfile
        from services.ingest.base_images import BaseImages
        from services.ingest.build import BuildService

        return BuildService(
            engine=await self.host_engine(),
            announcer=await self.announcer("build"),
            bases=BaseImages(
                engine=await self.host_engine(),
                bus=await self.bus(),
                streams=self.streams,
                identity=self.identity(),
                source=self.source("build"),
                read_dockerfile=with_checked_dockerfile,
            ),
            context_limit_bytes=self.settings.build_context_limit_bytes,
        )

    async def importer(self) -> Importer:
        from services.adapters.files import free_bytes
        from services.core.archives.entry_rules import ArchiveLimits
        from services.ingest.importer import Importer

        root = self.settings.engine_root
        return Importer(
            engine=await self.host_engine(),
            announcer=await self.announcer("import"),
            limits=ArchiveLimits(unpacked_bytes=self.settings.import_limit_bytes),
            free_bytes=lambda: free_bytes(root) if root else None,
        )

    async def promote(self) -> PromoteService:
        from services.ingest.promote import PromoteService

        return PromoteService(engine=await self.host_engine(), announcer=await self.announcer("promote"))


@asynccontextmanager
async def open_resources(settings: Settings, adapters: Adapters = REAL) -> AsyncIterator[Resources]:
    """Nothing is opened yet; all that was is closed on leaving. Raises BadInput for settings that contradict."""
    if contradictions := settings.contradictions():
        raise BadInput("\n".join(f"{name}: {reason}" for name, reason in contradictions.items()), code="bad_setting")
    async with AsyncExitStack() as stack:
        yield Resources(settings, adapters, stack)
