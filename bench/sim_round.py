"""One installation's story in faked time: a plan carried out, from the first request to rest, and then a look."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from bench.faked_loop import FakedLoop
from bench.sim_faults import Faults
from bench.sim_look import Look
from bench.sim_mishaps import Mishaps
from bench.sim_plan import IMAGES, RANGES, Ask, Plan
from bench.world import World, eventually
from bench.world_doors import doors
from events.messages import (
    DeploymentCancelRequested,
    DeploymentPlanned,
    DeploymentRequested,
    DeploymentRetryRequested,
)
from events.task_group import TaskGroup
from services.core.admission import Ticket
from services.core.manifests import sha256

#: More than one piece of a stream, so that something can happen in the middle of a layer.
SHARED = random.Random(0).randbytes(150_000)
_WATCH_SECONDS = 0.25
_REST_SECONDS = 3600.0


class Round:
    """One round. `problems` are words for people, each counted in `count` as lost, wrong or stuck."""

    def __init__(self, plan: Plan, faults: Faults, *, name: str = "round", quiet_seconds: float = 150.0) -> None:
        self.plan = plan
        self.faults = faults
        self.count: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.problems: list[str] = []
        self._name = name
        self._quiet = quiet_seconds
        self._builds: Counter[str] = Counter()
        #: By reference: every content that the host ever had under it.
        self._contents: dict[str, set[str]] = {}

    def bad(self, kind: str, what: str) -> None:
        """Note a problem: lost, wrong or stuck."""
        self.count[kind] += 1
        self.problems.append(f"{self._name}: {kind}: {what}")

    def run(self) -> Round:
        """In a loop whose time is faked. Files and sockets that are open afterwards are a problem too.

        Garbage waits until the end: when it is collected depends on everything that this program ever did, and what is
        woken by it comes in another order then.
        """
        before = structlog.get_config()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        loop, files = FakedLoop(), _open_files()
        gc.disable()
        try:
            loop.run_until_complete(self._run())
            gc.collect()
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            gc.enable()
            loop.close()
            structlog.configure(**before)
        if _open_files() > files:
            self.bad("wrong", f"{_open_files() - files} files or sockets are left open")
        return self

    async def _run(self) -> None:
        plan = self.plan
        agents = [range_id for range_id in RANGES if range_id.startswith("r")]
        world = World(
            ranges=len(agents),
            pooled=len(RANGES) - len(agents),
            replicas=2,
            policy=plan.policy,
            stores=dict(plan.stores),
            at_hand=plan.at_hand,
            door=doors(self.faults),
        )
        for number in range(IMAGES):
            self._build(world, number)
        async with world, self.faults:
            async with TaskGroup() as tasks:
                watching = tasks.create_task(self._watch_slots(world))
                self.faults.begin()
                async with TaskGroup() as story:
                    mishaps = Mishaps(world, self.faults, lambda value: self._build(world, int(value * IMAGES)))
                    for mishap in plan.mishaps:
                        story.create_task(_at(mishap.at, partial(mishaps.happen, mishap)))
                    for number, ask in enumerate(plan.asks):
                        story.create_task(_at(ask.at, partial(self._ask, world, number, ask)))
                self.faults.calm()
                await self._rest(world)
                watching.cancel()
            await Look(self, world, self._contents).at_everything([f"d{number}" for number in range(len(plan.asks))])

    def _build(self, world: World, number: int) -> None:
        """Give an image's tag new content."""
        reference = f"docker.io/library/image-{number}:1"
        build = self._builds[reference]
        self._builds[reference] += 1
        world.host.add_image(reference, [SHARED, b"layer %d of build %d" % (number, build)])
        self._contents.setdefault(reference, set()).add(sha256(world.host.config(reference)))

    async def _watch_slots(self, world: World) -> None:
        """For ever: who is at work, against how many may be. A deployment's index entries move with its record."""
        policy = world.policy
        while True:
            active = [Ticket.parse(text) for text in await world.bus.members(world.keys.active)]
            if len(active) > policy.pulls_per_host:
                self.bad("wrong", f"{len(active)} at work on {policy.pulls_per_host} slots: {active}")
            for range_id, held in Counter(ticket.range_id for ticket in active).items():
                if held > policy.pulls_per_range:
                    self.bad("wrong", f"{held} at work in {range_id}, at most {policy.pulls_per_range} may be")
            await asyncio.sleep(_WATCH_SECONDS)

    async def _ask(self, world: World, number: int, ask: Ask) -> None:
        deployments, deployment_id = world.streams.deployments, f"d{number}"
        images = tuple(f"docker.io/library/image-{image}:1" for image in ask.images)
        if ask.planned:
            planned = DeploymentPlanned(plan_id=f"plan-{number}", images=images, range_ids=(ask.range_id,))
            await world.say(deployments, planned)
            await asyncio.sleep(3.0)
        engine_url = world.engine_url(ask.range_id) if ask.range_id in world.pooled else None
        request = DeploymentRequested(
            deployment_id=deployment_id,
            range_id=ask.range_id,
            images=images,
            priority=ask.priority,
            engine_url=engine_url,
        )
        await world.say(deployments, request)
        if ask.cancel_after is not None:
            await asyncio.sleep(ask.cancel_after)
            await world.say(deployments, DeploymentCancelRequested(deployment_id=deployment_id))
        if ask.retry_after is not None:
            await asyncio.sleep(ask.retry_after)
            await world.say(deployments, DeploymentRetryRequested(deployment_id=deployment_id))

    async def _rest(self, world: World) -> None:
        """Until nothing is open; recreated ranges have their restoring deployments by then as well."""

        async def quiet() -> bool:
            for pause in (self._quiet, 0.0):  # a restoring deployment that failed is made again, after a pause
                if await world.bus.members(world.keys.open) or await world.bus.members(world.keys.queue):
                    return False
                await asyncio.sleep(pause)
            return True

        try:
            await eventually(quiet, within_seconds=_REST_SECONDS, every_seconds=2.0)
        except TimeoutError:
            for deployment_id in await world.bus.members(world.keys.open):
                self.bad("stuck", f"{deployment_id}: {await world.deployment(deployment_id)}")


async def _at(seconds: float, what: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    await what()


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
