"""The roles of an installation in memory, composed as `services.bootstrap` composes them, a program for each process.

Every life of a process makes all of it anew, so that nothing but bus, registry, engines and disk remembers anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from bench.world import LEASE_SECONDS, EngineAt, Process, World, loop_clock
from events.bus import Subscription
from events.task_group import TaskGroup
from events.worker import Worker
from services.adapters.layer_sources import layer_sources
from services.adapters.memory_layers import MemoryLayers
from services.agent import Agent, Patience, Pulse
from services.agent_pool import AgentPool
from services.core.ranges import EnginePlace
from services.deployer import Deployer
from services.exporting.exports import Exports
from services.exporting.image_reader import ImageReader
from services.exporting.spool import SpoolFolder
from services.ports import LayerSource
from services.pushing.image_push import ImagePush
from services.pushing.layer_forms import LayerForms
from services.pushing.layer_push import LayerPush
from services.registry_pusher import RegistryPusher
from services.runner import Role, run_roles
from services.stopping import Stop
from services.tar_server import TarServer
from services.tracker import Tracker

Program = Callable[[Process], Awaitable[None]]
SPOOL_LIMIT_BYTES = 256 * 1024**2
EXPORTS = 2
STALL_SECONDS = 20.0
_PATIENCE = Patience(stall_seconds=STALL_SECONDS, turn_seconds=300.0, away_seconds=30.0)
_PULSE = Pulse(beat_seconds=5.0, answer_seconds=10.0, identify_seconds=10.0)


def programs(world: World, replicas: int) -> dict[str, Program]:
    """By process name."""
    roles = _Roles(world)
    made: dict[str, Program] = {f"deployer-{number}": roles.deployer for number in range(replicas)}
    made |= {f"pusher-{number}": roles.pusher for number in range(replicas)}
    made |= {"tar-server": roles.tar_server, "tracker": roles.tracker}
    if world.pooled:
        made["agent-pool"] = roles.agent_pool
    return made | {f"agent-{range_id}": roles.agent(range_id) for range_id in world.agents}


class _Roles:
    def __init__(self, world: World) -> None:
        self._world = world

    def _sources(self, process: Process) -> Sequence[LayerSource]:
        world = self._world
        saved = layer_sources(world.door(world.host, process), engine_root=None, scratch=world.spools)
        return [world.door(MemoryLayers(world.host), process), *saved] if world.at_hand else saved

    async def deployer(self, process: Process) -> None:
        world = self._world
        role = Deployer(
            speaker=world.door(world.bus, process),
            engine=world.door(world.host, process),
            registry=world.door(world.registry, process),
            streams=world.streams,
            source=f"deployer@{process.name}",
            tar_url=f"http://127.0.0.1:{world.tar_port}",
            sources=self._sources(process),
            policy=world.policy,
            lease_seconds=LEASE_SECONDS,
            clock=loop_clock,
        )
        await self._serve(process, role)

    async def pusher(self, process: Process) -> None:
        world = self._world
        registry, sources = world.door(world.registry, process), self._sources(process)
        forms = LayerForms(speaker=world.door(world.bus, process), prefix=world.streams.prefix)
        role = RegistryPusher(
            push=ImagePush(
                engine=world.door(world.host, process),
                registry=registry,
                sources=sources,
                layers=LayerPush(registry=registry, sources=sources, forms=forms),
                engine_registry=world.registry.address,
            ),
            registry=registry,
            forms=forms,
            streams=world.streams,
            source=process.name,
            auto_push=_always,
            lease_seconds=LEASE_SECONDS,
        )
        await self._serve(process, role)

    async def tar_server(self, process: Process) -> None:
        world = self._world
        reader = ImageReader(
            engine=world.door(world.host, process),
            sources=self._sources(process),
            registry=world.door(world.registry, process),
        )
        role = TarServer(
            speaker=world.door(world.bus, process),
            prefix=world.streams.prefix,
            exports=Exports(
                reader=reader, folder=SpoolFolder(world.spools, limit_bytes=SPOOL_LIMIT_BYTES), limit=EXPORTS
            ),
            listen=f"127.0.0.1:{world.tar_port}",
            stall_seconds=STALL_SECONDS,
            clock=loop_clock,
        )
        await self._serve(process, role)

    async def tracker(self, process: Process) -> None:
        world = self._world
        speaker = world.door(world.bus, process)
        role = Tracker(speaker=speaker, streams=world.streams, lease_seconds=LEASE_SECONDS, clock=loop_clock)
        await self._serve(process, role)

    def agent(self, range_id: str) -> Program:
        return lambda process: self._serve(process, self._agent(range_id, process))

    def _agent(self, range_id: str, process: Process) -> Agent:
        world = self._world
        return Agent(
            range_id=range_id,
            engine=world.door(EngineAt(world.engines, range_id), process),
            speaker=world.door(world.bus, process),
            streams=world.streams,
            slots=2 * world.policy.pulls_per_range,
            lease_seconds=LEASE_SECONDS,
            patience=_PATIENCE,
            pulse=_PULSE,
        )

    async def agent_pool(self, process: Process) -> None:
        world = self._world

        async def drive(place: EnginePlace, stop: Stop) -> None:
            await run_roles(
                [self._agent(place.range_id, process)],
                listener=lambda _role, subscription: self._worker(process, subscription),
                grace_seconds=1.0,
                stop=stop,
            )

        speaker = world.door(world.bus, process)
        await self._serve(process, AgentPool(speaker=speaker, prefix=world.streams.prefix, drive=drive))

    async def _serve(self, process: Process, role: Role) -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(role.run())
            for subscription in role.subscriptions():
                tasks.create_task(self._worker(process, subscription).run())

    def _worker(self, process: Process, subscription: Subscription) -> Worker:
        return Worker(self._world.door(self._world.bus, process), subscription, name=process.name)


async def _always() -> bool:
    await asyncio.sleep(0)
    return True
