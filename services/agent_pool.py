"""Drives the engines of ranges that have no agent of their own: the agent program, on the host's side, many times.

Consumes no stream itself; each agent that it runs listens to its range's inbox and speaks to its outbox, as one in the
range would. Which engines there are, the deployer writes down (`services.core.ranges`, `EnginePlace`).

One engine that misbehaves stops its own agent only; that one is started again after a pause.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from events.bus import BusError, Speaker, Subscription
from events.task_group import TaskGroup
from services.core.ranges import EnginePlace, RangeKeys
from services.stopping import Stop
from services.telemetry import bind, get_logger

PAUSE_SECONDS = 1.0
PAUSE_LIMIT_SECONDS = 60.0
#: Runs the agent of one place until it is asked to stop.
Drive = Callable[[EnginePlace, Stop], Awaitable[None]]

log = get_logger(role="agent-pool")


@dataclass(slots=True)
class _Driven:
    """One place, its agent's task, and how to end it."""

    place: EnginePlace
    task: asyncio.Task[None]
    stop: Stop = field(default_factory=Stop)


class AgentPool:
    """The role. `drive` is the composer's: it opens the engine and runs an agent with its workers."""

    name = "agent-pool"

    def __init__(
        self,
        *,
        speaker: Speaker,
        prefix: str,
        drive: Drive,
        look_seconds: float = 2.0,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._speaker = speaker
        self._keys = RangeKeys(prefix)
        self._drive = drive
        self._look_seconds = look_seconds
        self._pause_seconds = pause_seconds
        self._driven: dict[str, _Driven] = {}
        self._draining = False

    def subscriptions(self) -> Sequence[Subscription]:
        return ()

    async def run(self) -> None:
        """Look for places now and then; start, restart and end agents accordingly."""
        async with TaskGroup() as tasks:
            while not self._draining:
                try:
                    self._follow(await self._places(), tasks)
                except BusError as problem:
                    log.warning("places cannot be read", why=str(problem))
                await asyncio.sleep(self._look_seconds)

    async def drain(self, grace_seconds: float) -> None:
        """Ask every agent to end, which each does within its own grace; asked again, they end at once."""
        self._draining = True
        for driven in self._driven.values():
            driven.stop.ask()
            if grace_seconds == 0:
                driven.stop.ask()
        tasks = [driven.task for driven in self._driven.values()]
        if tasks:
            await asyncio.wait(tasks)

    async def _places(self) -> dict[str, EnginePlace]:
        range_ids = await self._speaker.members(self._keys.places)
        records = await self._speaker.load_many([self._keys.place(range_id) for range_id in range_ids])
        places: dict[str, EnginePlace] = {}
        for range_id, record in zip(range_ids, records, strict=True):
            if record is None:
                continue
            with contextlib.suppress(msgspec.DecodeError):
                places[range_id] = msgspec.json.decode(record.value, type=EnginePlace)
        return places

    def _follow(self, places: dict[str, EnginePlace], tasks: TaskGroup) -> None:
        for range_id, driven in list(self._driven.items()):
            if driven.task.done():
                del self._driven[range_id]
            elif range_id not in places or places[range_id].engine_url != driven.place.engine_url:
                driven.stop.ask()  # the new address is taken up at the next look, once this one has ended
        for range_id, place in places.items():
            if range_id not in self._driven and not self._draining:
                stop = Stop()
                self._driven[range_id] = _Driven(place, tasks.create_task(self._keep(place, stop)), stop)

    async def _keep(self, place: EnginePlace, stop: Stop) -> None:
        """Run one agent; start it again when it fails, until it is asked to stop."""
        pause = self._pause_seconds
        with bind(range=place.range_id, engine_url=place.engine_url):
            while not stop.is_asked:
                started = asyncio.get_running_loop().time()
                try:
                    await self._drive(place, stop)
                except Exception as problem:
                    log.warning("agent failed, it is started again", why=str(problem), exc_info=problem)
                if asyncio.get_running_loop().time() - started > PAUSE_LIMIT_SECONDS:
                    pause = self._pause_seconds
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await stop.asked()
                pause = min(2 * pause, PAUSE_LIMIT_SECONDS)
