"""A whole installation in memory: bus, registry, host engine, ranges, and the roles as processes that can be killed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from bench.twins import AgentTwin, PusherTwin
from events.envelope import Envelope
from events.lease import Bus
from events.memory import MemoryBus
from events.messages import DeploymentEnded, Message
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker import Worker
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.adapters.save_stream import SaveStream
from services.core.deployment import Deployment, Policy
from services.core.deployment_index import DeploymentKeys
from services.core.images import Store
from services.deployer import Deployer

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
LEASE_SECONDS = 10.0
Found = TypeVar("Found")
Program = Callable[[Bus], Awaitable[None]]
"""What one process runs, given its own way to the bus."""


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

    def __init__(self, name: str, program: Program, door: Callable[[Process], Bus]) -> None:
        self.name = name
        self.lives = 0
        self.alive = False
        self._program = program
        self._door = door
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin a life with a bus of its own, unless one is being lived."""
        if self._task is not None and not self._task.done():
            return
        self.lives += 1
        self.alive = True
        self._task = asyncio.create_task(self._live(), name=f"{self.name}.{self.lives}")

    async def _live(self) -> None:
        await self._program(self._door(self))

    async def kill(self) -> None:
        """As kill -9 does: what it says from now on reaches nobody."""
        self.alive = False
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])


class World:
    """`ranges` range engines with an agent each, `replicas` deployers, one pusher."""

    def __init__(
        self,
        *,
        ranges: int = 2,
        replicas: int = 1,
        policy: Policy | None = None,
        host_store: Store = "classic",
        door: Callable[[Bus, Process], Bus] = lambda bus, _process: bus,
    ) -> None:
        self.streams = Streams("cyroid")
        self.keys = DeploymentKeys("cyroid")
        self.bus = MemoryBus(clock=loop_clock)
        self.policy = policy or Policy()
        self.registry = MemoryRegistry("registry:5000")
        self.host = MemoryEngine(engine_id="host", url="memory://host", store=host_store)
        self.engines = {f"r{number}": self.new_engine(f"r{number}", 1) for number in range(ranges)}
        self._wrap = door
        self.processes: dict[str, Process] = {}
        for number in range(replicas):
            self._process(f"deployer-{number}", self._deployer(number))
        self._process("pusher", self._pusher)
        for range_id in self.engines:
            self._process(f"agent-{range_id}", self._agent(range_id))

    def new_engine(self, range_id: str, life: int) -> MemoryEngine:
        """An empty engine, as a range that is made (again) has it."""
        return MemoryEngine(registries={"registry:5000": self.registry}, engine_id=f"{range_id}.{life}")

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
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

    def _process(self, name: str, program: Program) -> None:
        self.processes[name] = Process(name, program, lambda process: self._wrap(self.bus, process))

    def _deployer(self, number: int) -> Program:
        async def program(bus: Bus) -> None:
            role = Deployer(
                speaker=bus,
                engine=self.host,
                registry=self.registry,
                streams=self.streams,
                source=f"deployer@{number}",
                tar_url="http://tar:7070",
                sources=[SaveStream(self.host)],
                policy=self.policy,
                lease_seconds=LEASE_SECONDS,
                clock=loop_clock,
            )
            async with TaskGroup() as tasks:
                tasks.create_task(role.run())
                for subscription in role.subscriptions():
                    tasks.create_task(Worker(bus, subscription, name=f"deployer-{number}").run())

        return program

    async def _pusher(self, bus: Bus) -> None:
        twin = PusherTwin(streams=self.streams, engine=self.host, registry=self.registry)
        await Worker(bus, twin.subscription(LEASE_SECONDS), name="pusher").run()

    def _agent(self, range_id: str) -> Program:
        async def program(bus: Bus) -> None:
            twin = AgentTwin(
                speaker=bus,
                streams=self.streams,
                range_id=range_id,
                engine=self.engines[range_id],
                archives=self.host,
                clock=loop_clock,
            )
            async with TaskGroup() as tasks:
                tasks.create_task(twin.run())
                tasks.create_task(Worker(bus, twin.subscription(LEASE_SECONDS), name=range_id).run())

        return program
