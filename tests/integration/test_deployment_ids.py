"""Concurrent requests under one deployment id: one of them counts, and every sender is told which."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from events.bus import BusClient
from events.envelope import Envelope
from events.lease import Bus
from events.messages import DeploymentEnded, DeploymentRequested, TransferProgress
from events.streams import Streams
from events.task_group import TaskGroup
from events.worker.worker import Worker
from services.adapters.memory_engine import MemoryEngine
from services.adapters.memory_registry import MemoryRegistry
from services.commands.requests import ask_deployer, deployment
from services.core.deployments.deployment import Deployment
from services.core.deployments.index import DeploymentKeys
from services.deployer.role import Deployer
from services.errors import DuplicateDeployment
from services.registry_pusher.host_look import HostLook
from tests.contract.buses import open_bus
from tests.laboratory import RedisServer


@pytest.fixture(params=["memory", "redis"])
async def bus(request: pytest.FixtureRequest, key_prefix: str) -> AsyncIterator[Bus]:
    def url() -> str:
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url

    async with open_bus(request.param, url, key_prefix) as opened:
        yield opened


@asynccontextmanager
async def deployers(bus: Bus, streams: Streams) -> AsyncIterator[None]:
    """Two replicas, on a host that has no image at all: what they take up fails at once."""
    async with TaskGroup() as tasks:
        running = []
        for number in range(2):
            role = Deployer(
                bus=bus,
                hosts=HostLook(MemoryEngine()),
                registry=MemoryRegistry("registry:5000"),
                streams=streams,
                source=f"deployer@{number}",
                tar_url="http://tar:7070",
            )
            running.append(tasks.create_task(role.run()))
            running += [tasks.create_task(Worker(bus, one).run()) for one in role.subscriptions()]
        yield
        for task in running:
            task.cancel()


async def ask(bus: BusClient, streams: Streams, request: DeploymentRequested) -> bool:
    """Whether it was taken."""
    try:
        await ask_deployer(request, bus=bus, streams=streams, source="test")
    except DuplicateDeployment:
        return False
    return True


def is_refusal(envelope: Envelope) -> bool:
    message = envelope.message
    return isinstance(message, TransferProgress) and str(message.note).startswith("refused another request")


async def heard(bus: Bus, streams: Streams, ends: int, remarks: int) -> list[Envelope]:
    """All ends and remarks, once there are so many."""
    found: list[Envelope] = []
    async with asyncio.timeout(30):
        async for entry in bus.tail((streams.deployments, streams.progress), after="0"):
            envelope = entry.envelope
            if envelope is not None and (isinstance(envelope.message, DeploymentEnded) or is_refusal(envelope)):
                found.append(envelope)
            told = [isinstance(one.message, DeploymentEnded) for one in found]
            if told.count(True) >= ends and told.count(False) >= remarks:
                return found
    raise AssertionError("a tail that follows does not end")


async def dead(bus: Bus, streams: Streams) -> int:
    return len([entry async for entry in bus.tail((streams.dead,), after="0", follow=False)])


async def asked_of(bus: Bus, streams: Streams) -> str:
    record = await bus.load(DeploymentKeys(streams.prefix).record("one-id").name)
    assert record is not None
    return msgspec.json.decode(record.value, type=Deployment).range_id


async def test_of_requests_at_once_one_is_taken_and_all_others_are_refused(bus: Bus, key_prefix: str) -> None:
    """Twenty ask for different things under one id in one moment: one gets it, the others hear of it at once."""
    streams = Streams(key_prefix)
    requests = [deployment(f"r{number}", ["none:1"], deployment_id="one-id") for number in range(20)]
    taken = await asyncio.gather(*(ask(bus, streams, request) for request in requests))
    (winner,) = [number for number, good in enumerate(taken) if good]
    async with deployers(bus, streams):
        await heard(bus, streams, 1, 0)
        assert not await ask(bus, streams, requests[winner - 1])
    assert await asked_of(bus, streams) == f"r{winner}"
    assert await dead(bus, streams) == 0


async def test_the_same_request_at_once_is_taken_and_answered_every_time(bus: Bus, key_prefix: str) -> None:
    """However it writes its images: nobody is refused, and what one deployment came to is what all hear."""
    streams = Streams(key_prefix)
    names = ["none:1", "docker.io/library/none:1"] * 3
    same = [deployment("r1", [name], deployment_id="one-id") for name in names]
    async with deployers(bus, streams):
        assert all(await asyncio.gather(*(ask(bus, streams, request) for request in same)))
        first = (await heard(bus, streams, 1, 0))[0]
        assert await ask(bus, streams, same[0])
        told = await heard(bus, streams, 2, 0)
    assert {one.message for one in told} == {first.message}
    assert await dead(bus, streams) == 0


async def test_what_is_only_published_is_refused_as_progress(bus: Bus, key_prefix: str) -> None:
    """Ten publish different things under one id: one deployment, nine remarks with their cause, no dead letter."""
    streams = Streams(key_prefix)
    said = [
        Envelope(message=deployment(f"r{number}", ["none:1"], deployment_id="one-id"), source="shell", subject="x")
        for number in range(10)
    ]
    async with deployers(bus, streams):
        await asyncio.gather(*(bus.publish(streams.deployments, one) for one in said))
        told = await heard(bus, streams, 1, 9)
        assert not await ask(bus, streams, deployment("other", ["none:1"], deployment_id="one-id"))
    winner = await asked_of(bus, streams)
    losers = {one.id for one in said if getattr(one.message, "range_id", "") != winner}
    assert {one.causation_id for one in told if is_refusal(one)} == losers
    assert await dead(bus, streams) == 0


async def test_who_was_told_that_it_is_taken_keeps_it_against_one_who_only_publishes(bus: Bus, key_prefix: str) -> None:
    """The publisher's request lies before it in the stream, and no deployer has looked yet."""
    streams = Streams(key_prefix)
    other = Envelope(message=deployment("r9", ["none:1"], deployment_id="one-id"), source="shell", subject="x")
    await bus.publish(streams.deployments, other)
    assert await ask(bus, streams, deployment("r1", ["none:1"], deployment_id="one-id"))
    async with deployers(bus, streams):
        told = await heard(bus, streams, 1, 1)
    assert await asked_of(bus, streams) == "r1"
    assert [one.causation_id for one in told if is_refusal(one)] == [other.id]
    assert await dead(bus, streams) == 0
