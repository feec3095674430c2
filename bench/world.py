"""A whole installation in memory: bus, registry, engines, and every role as a process that can be killed.

The roles are the real ones (`bench.world_roles`); what they stand on are the twins that pass the same contract suites
as the real things. Only archives go over real sockets, on loopback, into spools in a folder of the installation's own.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from events.envelope import Envelope
from events.memory import MemoryBus
from events.messages import DeploymentEnded, Message
from events.streams import Streams
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.core.deployment import Deployment, Policy
from services.core.deployment_index import DeploymentKeys
from services.core.images import Store
from services.core.ranges import RangeKeys

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
LEASE_SECONDS = 10.0
REGISTRY = "registry:5000"
Found = TypeVar("Found")
Door = Callable[[Any, "Process"], Any]
"""Gives what stands between a process and something of the outside."""


def open_door(thing: Any, process: Process) -> Any:
    """Nothing in the way."""
    return thing


def loop_clock() -> datetime:
    """The time as the event loop has it: with a faked loop, hours pass in an instant."""
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


class Process:
    """A program that can be killed and started again."""

    def __init__(self, name: str, program: Callable[[Process], Awaitable[None]]) -> None:
        self.name = name
        self.lives = 0
        self.alive = False
        #: What ended a life that nobody had ended: a role is to outlive whatever happens to it.
        self.crashes: list[BaseException] = []
        self._program = program
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin a life, unless one is being lived."""
        if self._task is not None and not self._task.done():
            return
        self.lives += 1
        self.alive = True
        self._task = asyncio.create_task(self._live(), name=f"{self.name}.{self.lives}")

    async def _live(self) -> None:
        try:
            await self._program(self)
        except Exception as crash:  # noqa: BLE001  told by whoever looks at this process
            self.crashes.append(crash)

    async def kill(self) -> None:
        """As kill -9 does: what it says from now on reaches nobody."""
        self.alive = False
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])


class EngineAt:
    """Whatever engine a range has at the moment, as somebody sees it who knows its address."""

    def __init__(self, engines: Mapping[str, MemoryEngine], range_id: str) -> None:
        self._engines = engines
        self._range_id = range_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engines[self._range_id], name)


class World:
    """`ranges` range engines with an agent each (`r0`, `r1`, …), `pooled` without one (`p0`, …), `replicas` deployers.

    `stores` says which engines keep images as containerd does: `host`, or a range's id. `at_hand`: the host's layers
    can be read where they lie, not only by `save`. A pooled range's engine is at `engine_url(range_id)`.
    """

    def __init__(
        self,
        *,
        ranges: int = 2,
        pooled: int = 0,
        replicas: int = 1,
        policy: Policy | None = None,
        stores: Mapping[str, Store] | None = None,
        at_hand: bool = False,
        door: Door = open_door,
    ) -> None:
        from bench.world_roles import programs

        self.streams = Streams("cyroid")
        self.keys = DeploymentKeys("cyroid")
        self.range_keys = RangeKeys("cyroid")
        self.bus = MemoryBus(clock=loop_clock)
        self.policy = policy or Policy()
        self.registry = MemoryRegistry(REGISTRY)
        self.at_hand = at_hand
        self.door = door
        self._stores = dict(stores or {})
        self.host = MemoryEngine(engine_id="host", url="memory://host", store=self._stores.get("host", "classic"))
        names = [f"r{number}" for number in range(ranges)], [f"p{number}" for number in range(pooled)]
        self.agents, self.pooled = tuple(names[0]), tuple(names[1])
        self.engines = {range_id: self.new_engine(range_id, 1) for range_id in (*names[0], *names[1])}
        self.tar_port = _free_port()
        self.processes = {name: Process(name, program) for name, program in programs(self, replicas).items()}
        self.spools = Path()

    def new_engine(self, range_id: str, life: int) -> MemoryEngine:
        """An empty engine, as a range that is made (again) has it."""
        return MemoryEngine(
            registries={REGISTRY: self.registry},
            engine_id=f"{range_id}.{life}",
            url=self.engine_url(range_id),
            store=self._stores.get(range_id, "classic"),
        )

    def engine_url(self, range_id: str) -> str:
        """How the agent pool reaches an engine."""
        return f"memory://{range_id}"

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self.spools = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cyroid-world-")))
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
        record = await self.bus.load(self.keys.record(deployment_id))
        return msgspec.json.decode(record.value, type=Deployment) if record else None

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
        """Everything readable in a stream."""
        entries = self.bus.tail([stream], after="0", follow=False)
        return [entry.envelope.message async for entry in entries if entry.envelope is not None]

    async def ends(self, deployment_id: str) -> list[DeploymentEnded]:
        """How often, and how, a deployment's end was told."""
        told = await self.said(self.streams.deployments)
        return [one for one in told if isinstance(one, DeploymentEnded) and one.deployment_id == deployment_id]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
