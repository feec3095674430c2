"""Nemesis: faults of the environment around the processes of a simulated installation.

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

from bench.simulation.cluster import Cluster
from bench.simulation.fault_injection import Faults
from bench.simulation.workload import NemesisEvent
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


class Nemesis:
    """Makes them happen. `rebuild` makes an image anew, chosen by a number between 0 and 1."""

    def __init__(self, cluster: Cluster, faults: Faults, rebuild: Callable[[float], None]) -> None:
        self._cluster = cluster
        self._faults = faults
        self._rebuild = rebuild
        self._gone: Counter[int] = Counter()

    async def happen(self, fault: NemesisEvent) -> None:
        """Returns when it is over."""
        self._faults.kinds[fault.kind] += 1
        cluster, value = self._cluster, fault.value
        if fault.kind == "registry away":
            await self._away(cluster.registry, _AWAY_SECONDS * value)
        elif fault.kind == "registry down":
            await self._away(cluster.registry, _DOWN_SECONDS * value)
        elif fault.kind == "host engine away":
            await self._away(cluster.host, _AWAY_SECONDS * value)
        elif fault.kind == "broken save":
            self._break(cluster.host, "save", value)
        elif fault.kind in ("broken pull", "broken load"):
            self._break(cluster.engines[fault.range_id], "pull" if fault.kind == "broken pull" else "load", value)
        elif fault.kind == "stalled pull":
            self._break(cluster.engines[fault.range_id], "pull", value, stall=True)
        elif fault.kind == "range recreated":
            await self._recreate(fault.range_id, value)
        elif fault.kind == "image removed":
            await self._remove(cluster.engines[fault.range_id], value)
        elif fault.kind == "told again":
            await self._again(value)
        elif fault.kind == "rebuilt":
            self._rebuild(value)
        else:
            self._faults.kill(list(cluster.processes.values())[int(value * len(cluster.processes))])

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
        cluster = self._cluster
        process = cluster.processes.get(f"agent-{range_id}")
        if process is not None:
            process.alive = False
            await process.kill()
        lives = int(cluster.engines[range_id].engine_id.partition(".")[2])
        cluster.engines[range_id].away = True
        cluster.engines[range_id] = cluster.new_engine(range_id, lives + 1)
        if process is not None:
            await asyncio.sleep(_RECREATED_SECONDS * value)
            process.start()

    async def _again(self, value: float) -> None:
        cluster = self._cluster
        streams = [cluster.streams.deployments, cluster.streams.images]
        for range_id in cluster.engines:
            streams += [cluster.streams.outbox(range_id), cluster.streams.inbox(range_id)]
        place = value * len(streams)
        stream = streams[int(place)]
        told = [entry.envelope async for entry in cluster.bus.tail([stream], after="0", follow=False) if entry.envelope]
        told = [envelope for envelope in told if isinstance(envelope.message, REPEATABLE)]
        if told:
            envelope = told[int((place - int(place)) * len(told))]
            again = envelope.with_id(f"again-{cluster.streams.prefix}-{self._faults.kinds['told again']}")
            await cluster.bus.commit(Outcome(posts=(Post(stream, again),)))
