"""One simulation run in faked time: a workload carried out from the first request to rest, then checked."""

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

from bench.simulation.checker import Checker
from bench.simulation.cluster import Cluster, eventually
from bench.simulation.fault_injection import Faults
from bench.simulation.fault_proxies import faulty
from bench.simulation.nemesis import Nemesis
from bench.simulation.time_skipping import FakedLoop
from bench.simulation.workload import IMAGES, RANGES, Ask, Workload
from events.messages import (
    DeploymentCancelRequested,
    DeploymentPlanned,
    DeploymentRequested,
    DeploymentRetryRequested,
)
from events.task_group import TaskGroup
from services.core.deployments.admission import Ticket
from services.core.images.manifests import sha256

#: More than one piece of a stream, so that something can happen in the middle of a layer.
SHARED = random.Random(0).randbytes(150_000)
#: As long, and worth compressing.
REPETITIVE = random.Random(0).randbytes(1_500) * 100
_WATCH_SECONDS = 0.25
_REST_SECONDS = 3600.0


class SimulationRun:
    """One round. `problems` are words for people, each counted in `count` as lost, wrong or stuck."""

    def __init__(
        self, workload: Workload, faults: Faults, *, name: str = "round", quiet_seconds: float = 150.0
    ) -> None:
        self.workload = workload
        self.faults = faults
        self.count: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        #: Role → types of the messages that it published, without their versions.
        self.published: dict[str, set[str]] = {}
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

    def run(self) -> SimulationRun:
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
        workload = self.workload
        agents = [range_id for range_id in RANGES if range_id.startswith("r")]
        cluster = Cluster(
            ranges=len(agents),
            pooled=len(RANGES) - len(agents),
            replicas=2,
            settings=workload.settings,
            stores=dict(workload.stores),
            at_hand=workload.at_hand,
            mounting=workload.mounting,
            proxy=faulty(self.faults),
        )
        for number in range(IMAGES):
            self._build(cluster, number)
        async with cluster, self.faults:
            async with TaskGroup() as tasks:
                watching = tasks.create_task(self._watch_slots(cluster))
                self.faults.begin()
                async with TaskGroup() as running:
                    nemesis_faults = Nemesis(
                        cluster, self.faults, lambda value: self._build(cluster, int(value * IMAGES))
                    )
                    for nemesis_fault in workload.nemesis_faults:
                        running.create_task(_at(nemesis_fault.at, partial(nemesis_faults.happen, nemesis_fault)))
                    for number, ask in enumerate(workload.asks):
                        running.create_task(_at(ask.at, partial(self._ask, cluster, number, ask)))
                self.faults.calm()
                await self._rest(cluster)
                watching.cancel()
            self.published = await published(cluster)
            await Checker(self, cluster, self._contents).at_everything(
                [f"d{number}" for number in range(len(workload.asks))]
            )

    def _build(self, cluster: Cluster, number: int) -> None:
        """Give an image's tag new content."""
        reference = f"docker.io/library/image-{number}:1"
        build = self._builds[reference]
        self._builds[reference] += 1
        shared = REPETITIVE if self.workload.compressed else SHARED
        cluster.host.add_image(reference, [shared, b"layer %d of build %d" % (number, build)])
        self._contents.setdefault(reference, set()).add(sha256(cluster.host.config(reference)))

    async def _watch_slots(self, cluster: Cluster) -> None:
        """For ever: who is at work, against how many may be. A deployment's index entries move with its record."""
        policy = cluster.policy
        while True:
            active = [Ticket.parse(text) for text in await cluster.bus.members(cluster.keys.active)]
            for host, held in Counter(ticket.host for ticket in active).items():
                if held > policy.pulls_per_host:
                    self.bad("wrong", f"{held} at work on {policy.pulls_per_host} slots of {host!r}: {active}")
            for range_id, held in Counter(ticket.range_id for ticket in active).items():
                if held > policy.pulls_per_range:
                    self.bad("wrong", f"{held} at work in {range_id}, at most {policy.pulls_per_range} may be")
            await asyncio.sleep(_WATCH_SECONDS)

    async def _ask(self, cluster: Cluster, number: int, ask: Ask) -> None:
        deployments, deployment_id = cluster.streams.deployments, f"d{number}"
        images = tuple(f"docker.io/library/image-{image}:1" for image in ask.images)
        if ask.planned:
            planned = DeploymentPlanned(plan_id=f"plan-{number}", images=images, range_ids=(ask.range_id,))
            await cluster.say(deployments, planned)
            await asyncio.sleep(3.0)
        engine_url = cluster.engine_url(ask.range_id) if ask.range_id in cluster.pooled else None
        request = DeploymentRequested(
            deployment_id=deployment_id,
            range_id=ask.range_id,
            images=images,
            priority=ask.priority,
            engine_url=engine_url,
        )
        await cluster.say(deployments, request)
        if ask.cancel_after is not None:
            await asyncio.sleep(ask.cancel_after)
            await cluster.say(deployments, DeploymentCancelRequested(deployment_id=deployment_id))
        if ask.retry_after is not None:
            await asyncio.sleep(ask.retry_after)
            await cluster.say(deployments, DeploymentRetryRequested(deployment_id=deployment_id))

    async def _rest(self, cluster: Cluster) -> None:
        """Until nothing is open; recreated ranges have their restoring deployments by then as well."""

        async def quiet() -> bool:
            for pause in (self._quiet, 0.0):  # a restoring deployment that failed is made again, after a pause
                if await cluster.bus.members(cluster.keys.open) or await cluster.bus.members(cluster.keys.queue):
                    return False
                await asyncio.sleep(pause)
            return True

        try:
            await eventually(quiet, within_seconds=_REST_SECONDS, every_seconds=2.0)
        except TimeoutError:
            for deployment_id in await cluster.bus.members(cluster.keys.open):
                self.bad("stuck", f"{deployment_id}: {await cluster.deployment(deployment_id)}")


async def published(cluster: Cluster) -> dict[str, set[str]]:
    """By the source of each entry. The tracker copies progress of ranges under the source that it had."""
    streams, found = cluster.streams, dict[str, set[str]]()
    shared = [streams.images, streams.deployments, streams.deployer, streams.progress, streams.host_inbox("host")]
    shared.append(cluster.host_inbox)
    of_ranges = [
        name(range_id)
        for name in (streams.inbox, streams.outbox, streams.range_progress)
        for range_id in (*cluster.agents, *cluster.pooled)
    ]
    async for entry in cluster.bus.tail([*shared, *of_ranges], after="0", follow=False):
        if entry.envelope is not None:
            role = entry.envelope.source.partition("@")[0]
            if role == "agent" and entry.stream == streams.progress:
                role = "tracker"
            tag = str(type(entry.envelope.message).__struct_config__.tag)
            found.setdefault(role, set()).add(tag.rpartition(".")[0])
    return found


async def _at(seconds: float, what: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    await what()


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
