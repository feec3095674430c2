"""Makespan of a deployment to many ranges, in faked time: what slots per host make of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import structlog

from bench.simulation.cluster import Cluster
from bench.simulation.time_skipping import FakedLoop
from events.messages import AgentStarted, DeploymentRequested, ImageReady, PullRequested
from events.task_group import TaskGroup

#: What every pull takes.
PULL_SECONDS = 30.0
IMAGE = "docker.io/library/app:1"


def makespan(hosts: int, *, ranges: int) -> float:
    """Seconds until `ranges` ranges on each of `hosts` hosts have one image, with slots as they are shipped."""
    loop = FakedLoop()
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        return loop.run_until_complete(_makespan(hosts, ranges))
    finally:
        loop.close()
        structlog.configure(**before)


async def _makespan(hosts: int, ranges: int) -> float:
    where = {f"range-{host}-{number}": f"host-{host}" for host in range(hosts) for number in range(ranges)}
    async with Cluster(ranges=0) as cluster:
        cluster.host.add_image(IMAGE, [b"base", b"app"])
        for range_id, host in where.items():
            await cluster.bus.beat(cluster.streams.alive(range_id), b"{}", 1e6)
            started = AgentStarted(
                range_id=range_id,
                engine_id=range_id,
                engine_version="28.5",
                store="classic",
                platform="linux/amd64",
                host=host,
            )
            await cluster.say(cluster.streams.outbox(range_id), started, subject=range_id)
        await asyncio.sleep(30.0)
        async with TaskGroup() as tasks:
            agents = [tasks.create_task(_agent(cluster, range_id)) for range_id in where]
            begun = asyncio.get_running_loop().time()
            for range_id in where:
                request = DeploymentRequested(deployment_id=f"d-{range_id}", range_id=range_id, images=(IMAGE,))
                await cluster.say(cluster.streams.deployments, request)
            ends = await _ends(cluster, [f"d-{range_id}" for range_id in where])
            for agent in agents:
                agent.cancel()
            return ends - begun


async def _ends(cluster: Cluster, deployment_ids: Sequence[str]) -> float:
    """When the last one has succeeded. Raises AssertionError for one that has not."""
    for deployment_id in deployment_ids:
        ended = await cluster.ended(deployment_id, within_seconds=1e6)
        assert ended.state == "succeeded", ended
    return asyncio.get_running_loop().time()


async def _agent(cluster: Cluster, range_id: str) -> None:
    async for entry in cluster.bus.tail([cluster.streams.inbox(range_id)], after="0"):
        message = entry.envelope.message if entry.envelope else None
        if isinstance(message, PullRequested) and entry.envelope is not None:
            await asyncio.sleep(PULL_SECONDS)
            ready = ImageReady(transfer_id=message.transfer_id, image_id=message.image_id, how="pulled")
            said = entry.envelope.causes(ready, source=f"agent@{range_id}", subject=range_id)
            await cluster.bus.publish(cluster.streams.outbox(range_id), said)
