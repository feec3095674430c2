"""Adapters as a value: how one process opens each external dependency, and its clock, host name and process id.

`REAL` are the adapters of an installation. Tests, simulations and benches give fakes in their place to
`services.resources.open_resources`, so that everything is composed by `services.bootstrap`, whatever it stands on.

Imports are inside the functions, so that a command that needs only Redis does not load an HTTP client.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from events.lease import Bus
from events.streams import Streams
from services.core.deployments.deployment import Policy
from services.ports import Engine, LayerMounts, LayerPlacer, LayerSource, Registry, SavedImages
from services.runtime.tracing import traced, untraced
from services.settings import Settings

if TYPE_CHECKING:
    from events.redis.connections import Connections
    from events.redis.preflight import Concern


@asynccontextmanager
async def open_bus(settings: Settings) -> AsyncIterator[Bus]:
    """The bus, with spans for its messages where the environment asks for them."""
    process = f"{socket.gethostname()}.{os.getpid()}"
    async with open_plain_bus(settings) as bus, traced(bus, os.environ, process=process) as seen:
        yield seen


def open_plain_bus(settings: Settings) -> AbstractAsyncContextManager[Bus]:
    """The bus on Redis; for the agent of a range, the bus behind its gateway."""
    from events.gateway import GatewayBus
    from events.redis.bus import RedisBus
    from events.redis.connections import agent_name

    if settings.redis_url.startswith("gateway:"):
        return GatewayBus.open(settings.redis_url, streams=Streams(settings.key_prefix))
    return RedisBus.open(
        settings.redis_url,
        streams=Streams(settings.key_prefix),
        limit_bytes=settings.entry_limit_bytes,
        name=agent_name(settings.key_prefix, settings.range_id) if settings.range_id else "cyroid-images",
        connections=1 if settings.range_id else None,  # an agent: there are thousands, and each does little
        confirm_replicas=settings.confirm_replicas,
    )


def open_engine(settings: Settings, url: str) -> AbstractAsyncContextManager[Engine]:
    """The Docker engine at `url`."""
    from services.adapters.engine import DockerEngine

    return DockerEngine.open(url, stall_seconds=settings.stall_seconds)


def open_registry(settings: Settings) -> AbstractAsyncContextManager[Registry]:
    """The registry, as this side writes to it."""
    from services.adapters.registry import HttpRegistry
    from services.adapters.registry_auth import Credentials

    place = settings.registry_place()
    return HttpRegistry.open(
        place.url,
        address=settings.registry_address,
        credentials=Credentials(username=place.username, password=place.password, token=place.token),
        token_service=settings.registry_token_service,
        stall_seconds=settings.stall_seconds,
        storage=Path(settings.registry_write_storage) if settings.registry_write_storage else None,
    )


def host_layer_sources(settings: Settings, engine: Engine) -> Sequence[LayerSource]:
    """Ways to read layers of the host's engine, best first.

    What has to be unpacked on the way lies where exports lie, and not in a `/tmp` that may be memory.
    """
    from services.adapters.layer_sources import layer_sources

    root = settings.engine_root
    return layer_sources(engine, engine_root=Path(root) if root else None, scratch=Path(settings.spool_folder))


def saved_layers(settings: Settings, engine: SavedImages, limit_bytes: int) -> LayerSource:
    """Layers out of another engine's `docker save`, of so many bytes at most."""
    from services.adapters.save_stream import SaveStream

    return SaveStream(engine, Path(settings.spool_folder), limit_bytes=limit_bytes)


def layer_placer(settings: Settings, engine: Engine) -> LayerPlacer | None:
    """How this range's engine takes mounted layers; None where the host shows none."""
    from services.adapters.engine_layers import EngineLayers
    from services.adapters.engine_restart import EngineRestart

    if not settings.shown_layers:
        return None
    # The init's socket is beside the one that the engine has for the agent.
    control = Path(settings.engine_url.removeprefix("unix://")).with_name("control.sock")
    restart = EngineRestart(engine, control=control, mode=settings.mount_restart)
    shown, containerd = Path(settings.shown_layers), Path(settings.containerd_socket)
    return EngineLayers(engine, shown=shown, containerd_socket=containerd, restart=restart)


def layer_mounts(settings: Settings) -> LayerMounts:
    """Mounts of this host, from the registry's storage."""
    from services.adapters.erofs_index import IndexMaker
    from services.adapters.layer_folder import UNPACKED, LayerFolder
    from services.adapters.unpacked_layers import UnpackedLayers, UnpackLimits

    folder, storage = Path(settings.layer_folder), Path(settings.registry_storage)
    limits = UnpackLimits(unused_bytes=settings.unpacked_limit_bytes, free_percent=settings.store_free_percent)
    return LayerFolder(
        folder,
        storage=storage,
        indexes=IndexMaker(folder / "index", program=settings.mkfs_erofs),
        unpacked=UnpackedLayers(folder / UNPACKED, limits=limits, enabled=settings.mount_compressed),
    )


async def check_bus(bus: Bus, stream: str | None) -> Sequence[Concern]:
    """Problems of the bus's server and of our rights on `stream`; none for a bus without a server."""
    from events.redis.bus import RedisBus

    plain = untraced(bus)
    return await plain.preflight(stream) if isinstance(plain, RedisBus) else ()


async def bus_connections(bus: Bus) -> Connections | None:
    """Connections of the bus's server; None for a bus without one, and where they cannot be counted."""
    from events.redis.bus import RedisBus

    plain = untraced(bus)
    return await plain.connections() if isinstance(plain, RedisBus) else None


def utc_now() -> datetime:
    """The time now, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """The openers of one process. Each gives a context manager; leaving it closes the thing.

    `engine` takes the engine's address; `layer_sources` the host's engine, opened. `clock` gives aware times.
    `host` and `pid` name the process. `policy` has those limits of the deployer that are no settings.
    """

    bus: Callable[[Settings], AbstractAsyncContextManager[Bus]] = open_bus
    engine: Callable[[Settings, str], AbstractAsyncContextManager[Engine]] = open_engine
    registry: Callable[[Settings], AbstractAsyncContextManager[Registry]] = open_registry
    layer_sources: Callable[[Settings, Engine], Sequence[LayerSource]] = host_layer_sources
    saved_layers: Callable[[Settings, SavedImages, int], LayerSource] = saved_layers
    layer_placer: Callable[[Settings, Engine], LayerPlacer | None] = layer_placer
    layer_mounts: Callable[[Settings], LayerMounts] = layer_mounts
    check_bus: Callable[[Bus, str | None], Awaitable[Sequence[Concern]]] = check_bus
    bus_connections: Callable[[Bus], Awaitable[Connections | None]] = bus_connections
    clock: Callable[[], datetime] = utc_now
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    policy: Policy = field(default_factory=Policy)


#: What an installation runs on.
REAL = Adapters()
