"""What goes wrong in a simulated installation, and how often: decided by a seed, injected at every step.

a call to the bus      lost before it took effect, or after (the reply); late; so late that the lease is gone
a process              killed before or after any call to the bus, started again later
the registry, the      away for a while
host's engine
a range's engine       pull or load breaks off or stalls; the whole range is recreated, empty
a message              told again under a new id, later and out of order
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from bench.world import LEASE_SECONDS, Process, World
from events.bus import BusAway, Outcome, Post
from events.lease import Bus
from events.messages import (
    AgentStarted,
    DeploymentAdvance,
    DeploymentRequested,
    ImageFailed,
    ImagePushed,
    ImageReady,
    PullRequested,
    TarRequested,
)
from events.task_group import TaskGroup
from services.adapters.memory_engine import Fault
from services.errors import TransferFailed

#: What may be said twice without being somebody's second wish.
REPEATABLE = (
    DeploymentRequested,
    DeploymentAdvance,
    ImagePushed,
    ImageReady,
    ImageFailed,
    TarRequested,
    PullRequested,
    AgentStarted,
)


class Chaos:
    """Faults of one run. `calm()` ends them; `count` says what was injected."""

    def __init__(self, seed: int, *, likely: float = 0.1) -> None:
        self.random = random.Random(seed)
        self.count: Counter[str] = Counter()
        self._likely = likely
        self._calm = True
        self._tasks: TaskGroup | None = None

    @property
    def faults(self) -> int:
        return sum(self.count.values())

    def calm(self) -> None:
        self._calm = True

    def door(self, bus: Bus, process: Process) -> Bus:
        """A process's own way to the bus, with faults in it."""
        return cast(Bus, _Door(bus, process, self))

    def pick(self) -> str | None:
        """What happens to the next call; None most of the time."""
        if self._calm or self.random.random() >= self._likely:
            return None
        kinds = ("lost call", "lost reply", "late", "very late", "killed before", "killed after")
        kind = self.random.choices(kinds, weights=(3, 3, 4, 1, 2, 2))[0]
        self.count[kind] += 1
        return kind

    def kill(self, process: Process) -> None:
        """End a process now, start it again after a while."""
        process.alive = False
        assert self._tasks is not None
        self._tasks.create_task(self._kill(process))

    async def _kill(self, process: Process) -> None:
        await process.kill()
        await asyncio.sleep(self.random.uniform(0.1, 8.0))
        process.start()

    async def run(self, world: World, seconds: float) -> None:
        """The faults that come from outside, for so long; ends when all is healed."""
        async with TaskGroup() as tasks:
            self._tasks, self._calm = tasks, False
            end = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < end:
                await asyncio.sleep(self.random.uniform(0.1, 1.0))
                kind, happen = self.random.choice(self._outside(world))
                self.count[kind] += 1
                tasks.create_task(happen())
            self.calm()

    def _outside(self, world: World) -> list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]]:
        range_id = self.random.choice(list(world.engines))
        return [
            ("registry away", lambda: self._away(world.registry)),
            ("host engine away", lambda: self._away(world.host)),
            ("broken pull", lambda: self._break(world, range_id, "pull")),
            ("broken load", lambda: self._break(world, range_id, "load")),
            ("stalled pull", lambda: self._break(world, range_id, "pull", stall=True)),
            ("range recreated", lambda: self._recreate(world, range_id)),
            ("told again", lambda: self._again(world)),
            ("told again", lambda: self._again(world)),
        ]

    async def _away(self, what: Any) -> None:
        what.away = True
        await asyncio.sleep(self.random.uniform(0.5, 20.0))
        what.away = False

    async def _break(self, world: World, range_id: str, operation: Any, *, stall: bool = False) -> None:
        error = None if stall else TransferFailed(f"the {operation} broke off")
        after = self.random.choice((0, 1, 500))
        world.engines[range_id].faults[operation] = Fault(after_bytes=after, error=error, stall=stall)

    async def _recreate(self, world: World, range_id: str) -> None:
        process = world.processes[f"agent-{range_id}"]
        process.alive = False
        await process.kill()
        world.engines[range_id] = world.new_engine(range_id, process.lives + 1)
        await asyncio.sleep(self.random.uniform(0.1, 8.0))
        process.start()

    async def _again(self, world: World) -> None:
        streams = [world.streams.deployments, world.streams.images]
        for range_id in world.engines:
            streams += [world.streams.outbox(range_id), world.streams.inbox(range_id)]
        stream = self.random.choice(streams)
        told = [entry.envelope async for entry in world.bus.tail([stream], after="0", follow=False) if entry.envelope]
        told = [envelope for envelope in told if isinstance(envelope.message, REPEATABLE)]
        if told:
            envelope = self.random.choice(told).with_id(f"again-{self.random.getrandbits(64):x}")
            await world.bus.commit(Outcome(posts=(Post(stream, envelope),)))


class _Door:
    """Every call of one process passes here. A process that was killed gets no call through."""

    def __init__(self, bus: Bus, process: Process, chaos: Chaos) -> None:
        self._bus = bus
        self._process = process
        self._life = process.lives
        self._chaos = chaos

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._bus, name)
        if name == "tail":
            return call

        async def passed(*arguments: Any, **options: Any) -> Any:
            return await self._pass(lambda: call(*arguments, **options))

        return passed

    async def _pass(self, call: Callable[[], Awaitable[Any]]) -> Any:
        self._living()
        kind = self._chaos.pick()
        if kind == "lost call":
            raise BusAway("the connection broke before the call")
        if kind == "killed before":
            self._chaos.kill(self._process)
            await asyncio.Event().wait()
        if kind in ("late", "very late"):
            seconds = self._chaos.random.uniform(0.01, 3.0) if kind == "late" else 1.5 * LEASE_SECONDS
            await asyncio.sleep(seconds)
            self._living()
        answer = await call()
        if kind == "lost reply":
            raise BusAway("the connection broke after the call")
        if kind == "killed after":
            self._chaos.kill(self._process)
            await asyncio.Event().wait()
        return answer

    def _living(self) -> None:
        if not self._process.alive or self._process.lives != self._life:
            raise BusAway("this process was killed")
