"""A cluster in memory: bus, registry, engines, and every role as a process that can be killed.

The roles are the real ones, composed by `services.bootstrap` over adapters of this cluster; what they stand on are the
fakes that pass the same contract suites as the real things. Only archives go over real sockets, on loopback, into
spools in a folder of the cluster's own.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from bench.simulation.processes import Process, Program, Proxy, direct, serving
from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import DeploymentEnded, Message
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_layer_mounts import MemoryLayerMounts
from services.adapters.memory_layer_placer import MemoryLayerPlacer
from services.adapters.memory_layers import MemoryLayers
from services.adapters.memory_registry import MemoryRegistry
from services.adapters.openers import Adapters, host_layer_sources
from services.core.deployments.deployment import Deployment, Policy
from services.core.deployments.index import DeploymentKeys
from services.core.images.image import Store
from services.core.ranges.ranges import RangeKeys
from services.deployer.policy import policy_of
from services.ports import Engine, LayerPlacer, LayerSource
from services.settings import Settings

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
LEASE_SECONDS = 10.0
REGISTRY = "registry:5000"
#: What a cluster is set to; its places (addresses, folders, ranges) are its own.
SETTINGS = Settings(
    lease_seconds=LEASE_SECONDS,
    push_wait_seconds=30.0,
    exports_limit=2,
    spool_limit_bytes=256 * 1024**2,
    drain_seconds=1.0,
)
LIMITS = Policy()
Found = TypeVar("Found")


def loop_clock() -> datetime:
    """The time of the event loop. With a faked loop, hours pass in an instant."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


async def eventually(
    check: Callable[[], Awaitable[Found | None]], *, within_seconds: float = 3600.0, every_seconds: float = 0.05
) -> Found:
    """Wait (in the loop's time) until `check` gives something true. Raises TimeoutError."""
    async with asyncio.timeout(within_seconds):
        found = await check()
        while not found:
            await asyncio.sleep(every_seconds)
            found = await check()
        return found


class EngineAt:
    """The engine that a range has at the moment, behind its address."""

    def __init__(self, engines: Mapping[str, MemoryEngine], range_id: str) -> None:
        self._engines = engines
        self._range_id = range_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engines[self._range_id], name)


class Cluster:
    """`ranges` range engines with an agent each (`r0`, `r1`, …), `pooled` without one (`p0`, …), `replicas` deployers.

    `others` are further hosts, each with an engine (`hosts[name]`), registry-pushers and a tar server of its own.

    `stores` says which engines keep images as containerd does: `host`, or a range's id. `at_hand`: the host's layers
    can be read where they lie, not only by `save`. A pooled range's engine is at `engine_url(range_id)`. `mounting`:
    a layer-mounter shows layers to the ranges that have an agent.
    """

    def __init__(
        self,
        *,
        ranges: int = 2,
        pooled: int = 0,
        replicas: int = 1,
        settings: Settings = SETTINGS,
        limits: Policy = LIMITS,
        stores: Mapping[str, Store] | None = None,
        at_hand: bool = False,
        mounting: bool = False,
        proxy: Proxy = direct,
        others: Sequence[str] = (),
    ) -> None:
        self.streams = Streams("cyroid")
        self.keys = DeploymentKeys("cyroid")
        self.range_keys = RangeKeys("cyroid")
        self.bus = MemoryBus(clock=loop_clock)
        self.policy = policy_of(settings, limits)
        self.registry = MemoryRegistry(REGISTRY)
        #: What the host mounts, which is there whatever becomes of the role.
        self.mounts = MemoryLayerMounts(self.registry.blobs.keys())
        self.at_hand, self.mounting = at_hand, mounting
        self._settings, self._limits, self._proxy = settings, limits, proxy
        self._stores = dict(stores or {})
        self.host = MemoryEngine(engine_id="host", url="memory://host", store=self._stores.get("host", "classic"))
        self.hosts = {"host": self.host}
        self.hosts |= {name: MemoryEngine(engine_id=name, url=f"memory://{name}") for name in others}
        names = [f"r{number}" for number in range(ranges)], [f"p{number}" for number in range(pooled)]
        self.agents, self.pooled = tuple(names[0]), tuple(names[1])
        self.engines = {range_id: self.new_engine(range_id, 1) for range_id in (*names[0], *names[1])}
        self.tar_ports = {name: _free_port() for name in self.hosts}
        self.spools = Path()
        self.processes = {name: Process(name, program) for name, program in self._programs(replicas).items()}

    def _programs(self, replicas: int) -> dict[str, Program]:
        """By process name."""
        made = {f"deployer-{number}": self._serving("deployer") for number in range(replicas)}
        made |= {f"pusher-{number}": self._serving("registry-pusher") for number in range(replicas)}
        made |= {role: self._serving(role) for role in ("tar-server", "tracker")}
        for host in list(self.hosts)[1:]:
            made[f"tar-server-{host}"] = self._serving("tar-server", host=host)
            made |= {f"pusher-{host}-{n}": self._serving("registry-pusher", host=host) for n in range(replicas)}
        if self.pooled:
            made["agent-pool"] = self._serving("agent-pool")
        if self.mounting:
            made["layer-mounter"] = self._serving("layer-mounter")
        return made | {f"agent-{range_id}": self._serving("agent", range_id) for range_id in self.agents}

    def _serving(self, role: str, range_id: str = "", host: str = "host") -> Program:
        return serving(role, lambda: self._settings_for(range_id, host), self._adapters)

    def _settings_for(self, range_id: str, host: str) -> Settings:
        """Those of the cluster, with its places. `range_id`: an agent's."""
        tar = f"127.0.0.1:{self.tar_ports[host]}"
        return msgspec.structs.replace(
            self._settings,
            key_prefix=self.streams.prefix,
            host_engine_url=self.hosts[host].url,
            registry_url=f"http://{REGISTRY}",
            registry_address=REGISTRY,
            tar_listen=tar,
            tar_url=f"http://{tar}",
            spool_folder=str(self.spools if host == "host" else self.spools / host),
            range_id=range_id,
            engine_url=self.engine_url(range_id),
        )

    def _adapters(self, process: Process) -> Adapters:
        """What one life of a process stands on, each behind the proxy."""

        def opened(thing: Any) -> AbstractAsyncContextManager[Any]:
            return nullcontext(self._proxy(thing, process))

        def engine(_: Settings, url: str) -> AbstractAsyncContextManager[Engine]:
            name = url.partition("://")[2]
            return opened(self.hosts[name] if name in self.hosts else EngineAt(self.engines, name))

        def sources(settings: Settings, engine: Engine) -> Sequence[LayerSource]:
            saved = host_layer_sources(settings, engine)
            at_hand = MemoryLayers(self.hosts[settings.host_engine_url.partition("://")[2]])
            return [self._proxy(at_hand, process), *saved] if self.at_hand else saved

        def placer(settings: Settings, _: Engine) -> LayerPlacer | None:
            if not self.mounting or settings.range_id not in self.agents:
                return None
            return self._proxy(self._placer(settings.range_id), process)  # type: ignore[no-any-return]

        return Adapters(
            layer_placer=placer,
            layer_mounts=lambda _: self._proxy(self.mounts, process),
            bus=lambda _: opened(self.bus),
            engine=engine,
            registry=lambda _: opened(self.registry),
            layer_sources=sources,
            clock=loop_clock,
            host=process.name,
            pid=process.lives,
            policy=self._limits,
        )

    def _placer(self, range_id: str) -> MemoryLayerPlacer:
        return MemoryLayerPlacer(
            range_id=range_id,
            engine=lambda: self.engines[range_id],
            mounts=self.mounts,
            content=lambda digest: self.registry.blobs[digest],
        )

    def new_engine(self, range_id: str, life: int) -> MemoryEngine:
        """An empty engine, as a range that is made (again) has it."""
        return MemoryEngine(
            registries={REGISTRY: self.registry},
            engine_id=f"{range_id}.{life}",
            url=self.engine_url(range_id),
            store=self._stores.get(range_id, "classic"),
        )

    @property
    def host_inbox(self) -> str:
        """The stream of requests to the layer-mounter."""
        return self.streams.host_inbox(self._settings.host_id)

    def engine_url(self, range_id: str) -> str:
        """How the agent pool reaches an engine."""
        return f"memory://{range_id}"

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self.spools = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cyroid-cluster-")))
        for process in self.processes.values():
            self._stack.push_async_callback(process.kill)
            process.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def say(self, stream: str, message: Message, *, subject: str = "test") -> Envelope:
        """Publish something as somebody outside would."""
        envelope = Envelope(message=message, source="operator", subject=subject)
        await self.bus.publish(stream, envelope)
        return envelope

    async def deployment(self, deployment_id: str) -> Deployment | None:
        return (await self.keys.record(deployment_id).load(self.bus)).value

    async def ended(self, deployment_id: str, *, within_seconds: float = 3600.0) -> Deployment:
        """Wait (in the loop's time) for a deployment's end. Raises TimeoutError."""
        async with asyncio.timeout(within_seconds):
            return await self.until(lambda found: not found.open, deployment_id)

    async def until(self, true: Callable[[Deployment], bool], deployment_id: str) -> Deployment:
        """Wait (in the loop's time) until a deployment is as wanted. Raises TimeoutError after an hour."""

        async def fits() -> Deployment | None:
            found = await self.deployment(deployment_id)
            return found if found is not None and true(found) else None

        return await eventually(fits)

    async def mute(self, range_id: str) -> None:
        """An agent that is alive and does nothing."""
        await self.processes[f"agent-{range_id}"].kill()
        await self.bus.beat(self.streams.alive(range_id), b"{}", 86400.0)

    async def said(self, stream: str) -> list[Message]:
        """Every readable message in a stream."""
        entries = self.bus.tail([stream], after="0", follow=False)
        return [entry.envelope.message async for entry in entries if entry.envelope is not None]

    async def ends(self, deployment_id: str) -> list[DeploymentEnded]:
        """How often, and how, a deployment's end was published."""
        told = await self.said(self.streams.deployments)
        return [one for one in told if isinstance(one, DeploymentEnded) and one.deployment_id == deployment_id]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
