"""Agent pool: drives the engines of ranges that have no agent of their own, from the host's side.

Itself it consumes what the composer gives it (`services.registry_pusher.range_push`: images that only a range still
has); each agent that it runs consumes its range's inbox and publishes to its outbox, as one in the
range would. Which engines there are, the deployer writes down (`services.core.ranges.ranges`, `EnginePlace`).

One engine that misbehaves stops its own agent only; that one is started again after a pause.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from events.bus import BusClient, BusError
from events.records import UnreadableRecord
from events.subscription import Subscription
from events.task_group import TaskGroup
from services.core.ranges.engine_networks import engine_refusal
from services.core.ranges.ranges import EnginePlace, RangeKeys
from services.core.secrets import without_password
from services.errors import BadInput
from services.runtime.shutdown import Stop
from services.runtime.telemetry import bind, get_logger

PAUSE_SECONDS = 1.0
PAUSE_LIMIT_SECONDS = 60.0
#: Runs the agent of one place until it is asked to stop.
Drive = Callable[[EnginePlace, Stop], Awaitable[None]]
#: Claims the id of a range for this host. Raises BadInput, BusError.
Claim = Callable[[str], Awaitable[object]]

log = get_logger(role="agent-pool")


@dataclass(slots=True)
class _Driven:
    """An engine that is driven: its agent's task, and how to stop it."""

    place: EnginePlace
    task: asyncio.Task[None]
    stop: Stop = field(default_factory=Stop)


class AgentPool:
    """The role. `drive` is the composer's: it opens the engine and runs an agent with its workers.

    `claim` claims a range's id for this pool's host, and raises BadInput where another host has it; None: the
    installation has no other host.
    """

    name = "agent-pool"

    def __init__(
        self,
        *,
        bus: BusClient,
        prefix: str,
        drive: Drive,
        engine_networks: str = "",
        host: str = "",
        claim: Claim | None = None,
        subscriptions: Sequence[Subscription] = (),
        check_seconds: float = 2.0,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._bus = bus
        self._keys = RangeKeys(prefix)
        self._drive = drive
        self._engine_networks = engine_networks
        self._host, self._claim = host, claim
        self._subscriptions = tuple(subscriptions)
        self._refused: set[str] = set()
        self._elsewhere: set[str] = set()
        self._check_seconds = check_seconds
        self._pause_seconds = pause_seconds
        self._driven: dict[str, _Driven] = {}
        self._draining = False

    def subscriptions(self) -> Sequence[Subscription]:
        return self._subscriptions

    async def run(self) -> None:
        """Look for engine places periodically; start, restart and stop agents accordingly."""
        async with TaskGroup() as tasks:
            while not self._draining:
                try:
                    self._follow(await self._places(), tasks)
                except BusError as problem:
                    log.warning("places cannot be read", why=str(problem))
                await asyncio.sleep(self._check_seconds)

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
        range_ids = await self._bus.members(self._keys.places)
        keys = [self._keys.place(range_id) for range_id in range_ids]
        records = await self._bus.load_many([key.name for key in keys])
        places: dict[str, EnginePlace] = {}
        for range_id, key, record in zip(range_ids, keys, records, strict=True):
            with contextlib.suppress(UnreadableRecord):
                place = key.read(record).value
                if place is not None and self._may_be_called(place) and await self._is_ours(place):
                    places[range_id] = place
        return places

    async def _is_ours(self, place: EnginePlace) -> bool:
        """Whether this host's pool drives the engine: one that names no host is whose pool claims the range first."""
        if self._claim is None or place.range_id in self._driven:
            return True
        if place.host not in ("", self._host):
            return False
        try:
            await self._claim(place.range_id)
        except BadInput as problem:
            if place.range_id not in self._elsewhere:
                self._elsewhere.add(place.range_id)
                log.info("another host's pool drives an engine", range=place.range_id, why=str(problem))
            return False
        return True

    def _may_be_called(self, place: EnginePlace) -> bool:
        """Whether the engine's address is allowed: the requester names it, the operator's setting limits it."""
        refusal = engine_refusal(place.engine_url, self._engine_networks)
        if refusal is not None and place.engine_url not in self._refused:
            self._refused.add(place.engine_url)
            log.warning("an engine is not called", range=place.range_id, why=refusal)
        return refusal is None

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
        with bind(range=place.range_id, engine_url=without_password(place.engine_url)):
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
