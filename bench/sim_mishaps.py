"""What goes wrong around the processes of a simulated installation.

the registry, the      away for a while, or long enough that images go by tar
host's engine
a range's engine       pull or load breaks off or stalls; an image is removed; the whole range is recreated, empty
the host's images      a save breaks off; a tag is built anew, with other content
a message              told again under a new id, later and out of order
a process              killed whatever it is at
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from bench.sim_faults import Faults
from bench.sim_plan import Mishap
from bench.world import World
from events.bus import Outcome, Post
from events.messages import (
    AgentStarted,
    DeploymentAdvance,
    DeploymentRequested,
    ImageFailed,
    ImagePushed,
    ImageReady,
    LoadOffered,
    PullRequested,
    TarRequested,
    TransferCancelled,
)
from services.adapters.memory_engine import Fault, MemoryEngine, Operation
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
    LoadOffered,
    TransferCancelled,
    AgentStarted,
)
_AWAY_SECONDS = 20.0
_DOWN_SECONDS = 60.0
_RECREATED_SECONDS = 8.0


class Mishaps:
    """Makes them happen. `rebuild` makes an image anew, chosen by a number between 0 and 1."""

    def __init__(self, world: World, faults: Faults, rebuild: Callable[[float], None]) -> None:
        self._world = world
        self._faults = faults
        self._rebuild = rebuild
        self._gone: Counter[int] = Counter()

    async def happen(self, mishap: Mishap) -> None:
        """Returns when it is over."""
        self._faults.kinds[mishap.kind] += 1
        world, value = self._world, mishap.value
        if mishap.kind == "registry away":
            await self._away(world.registry, _AWAY_SECONDS * value)
        elif mishap.kind == "registry down":
            await self._away(world.registry, _DOWN_SECONDS * value)
        elif mishap.kind == "host engine away":
            await self._away(world.host, _AWAY_SECONDS * value)
        elif mishap.kind == "broken save":
            self._break(world.host, "save", value)
        elif mishap.kind in ("broken pull", "broken load"):
            self._break(world.engines[mishap.range_id], "pull" if mishap.kind == "broken pull" else "load", value)
        elif mishap.kind == "stalled pull":
            self._break(world.engines[mishap.range_id], "pull", value, stall=True)
        elif mishap.kind == "range recreated":
            await self._recreate(mishap.range_id, value)
        elif mishap.kind == "image removed":
            await self._remove(world.engines[mishap.range_id], value)
        elif mishap.kind == "told again":
            await self._again(value)
        elif mishap.kind == "rebuilt":
            self._rebuild(value)
        else:
            self._faults.kill(list(world.processes.values())[int(value * len(world.processes))])

    async def _away(self, what: Any, seconds: float) -> None:
        self._gone[id(what)] += 1
        what.away = True
        await asyncio.sleep(seconds)
        self._gone[id(what)] -= 1
        what.away = self._gone[id(what)] > 0

    def _break(self, engine: MemoryEngine, operation: Operation, value: float, *, stall: bool = False) -> None:
        error = None if stall else TransferFailed(f"the {operation} broke off")
        after = (0, 1, 500, 70_000)[int(value * 4)]
        engine.faults[operation] = Fault(after_bytes=after, error=error, stall=stall)

    async def _remove(self, engine: MemoryEngine, value: float) -> None:
        if names := sorted(engine.store.names):
            await engine.untag(names[int(value * len(names))])

    async def _recreate(self, range_id: str, value: float) -> None:
        """The range with its agent; of one without, the pool goes on and finds another engine there."""
        world = self._world
        process = world.processes.get(f"agent-{range_id}")
        if process is not None:
            process.alive = False
            await process.kill()
        lives = int(world.engines[range_id].engine_id.partition(".")[2])
        world.engines[range_id].away = True
        world.engines[range_id] = world.new_engine(range_id, lives + 1)
        if process is not None:
            await asyncio.sleep(_RECREATED_SECONDS * value)
            process.start()

    async def _again(self, value: float) -> None:
        world = self._world
        streams = [world.streams.deployments, world.streams.images]
        for range_id in world.engines:
            streams += [world.streams.outbox(range_id), world.streams.inbox(range_id)]
        place = value * len(streams)
        stream = streams[int(place)]
        told = [entry.envelope async for entry in world.bus.tail([stream], after="0", follow=False) if entry.envelope]
        told = [envelope for envelope in told if isinstance(envelope.message, REPEATABLE)]
        if told:
            envelope = told[int((place - int(place)) * len(told))]
            again = envelope.with_id(f"again-{world.streams.prefix}-{self._faults.kinds['told again']}")
            await world.bus.commit(Outcome(posts=(Post(stream, again),)))
