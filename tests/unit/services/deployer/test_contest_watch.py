"""What the deployer does while two agents on two engines speak for one range, in faked time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from events.messages import RangeContested
from events.task_group import TaskGroup
from events.worker.worker import Worker
from services.adapters.memory_engine import MemoryEngine
from services.agent import Agent
from services.core.ranges.contest import ContestedRange, ContestKeys
from services.queries.known_ranges import known_ranges
from tests.simulation import Cluster, eventually
from tests.unit.services.deployment_requests import APP, BASE, request

pytestmark = pytest.mark.faked_time


@asynccontextmanager
async def _second_agent(world: Cluster, engine: MemoryEngine) -> AsyncIterator[None]:
    """One more agent for r0, on an engine of its own."""
    agent = Agent(range_id="r0", engine=engine, bus=world.bus, streams=world.streams)
    async with TaskGroup() as group:
        tasks = [group.create_task(Worker(world.bus, one).run()) for one in agent.subscriptions()]
        tasks.append(group.create_task(agent.run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _contest(world: Cluster) -> ContestedRange | None:
    return (await ContestKeys("cyroid").record("r0").load(world.bus)).value


async def _settled(world: Cluster) -> bool:
    return await _contest(world) is None


async def test_two_agents_are_noticed_and_deployments_fail_with_that_reason() -> None:
    """Not one lands on either engine; a retry brings them once one agent is left."""
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"app"])
        other = world.new_engine("r0", 2)
        async with _second_agent(world, other):
            contest = await eventually(lambda: _contest(world), within_seconds=30)
            assert contest.engine_ids == ("r0.1", "r0.2")
            (row,) = [one for one in await known_ranges(world.bus, world.streams) if one.range_id == "r0"]
            assert row.contested is not None
            for number in range(4):
                await world.say(world.streams.deployments, request(f"d{number}"))
            for number in range(4):
                ended = await world.ended(f"d{number}", within_seconds=world.policy.agent_grace_seconds + 20)
                error = ended.images[0].error
                assert error is not None
                assert (error.code, error.retryable) == ("range_contested", True)
                assert "two agents speak for range r0, on the engines r0.1 and r0.2" in error.message
            assert (world.engines["r0"].counts.get("pull", 0), other.counts.get("pull", 0)) == (0, 0)
        await eventually(lambda: _settled(world), within_seconds=60)
        told = [one for one in await world.said(world.streams.deployments) if isinstance(one, RangeContested)]
        assert [(one.engine_ids, one.resolved) for one in told] == [(("r0.1", "r0.2"), False), (("r0.1", "r0.2"), True)]
        await world.say(world.streams.deployments, request("after"))
        assert (await world.ended("after", within_seconds=20)).state == "succeeded"
        assert await world.engines["r0"].inspect(APP) is not None


async def test_a_deployment_that_waits_goes_on_when_one_agent_is_left() -> None:
    """Within the grace it is neither failed nor said to be done."""
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"app"])
        async with _second_agent(world, world.new_engine("r0", 2)):
            await eventually(lambda: _contest(world), within_seconds=30)
            await world.say(world.streams.deployments, request("d1"))
            await world.until(lambda found: found.images[0].absent_since is not None, "d1")
        ended = await world.ended("d1", within_seconds=world.policy.agent_grace_seconds)
        assert ended.state == "succeeded"
        assert await world.engines["r0"].inspect(APP) is not None


async def test_the_engine_that_stays_is_the_ranges() -> None:
    """Whichever announced itself last: what should be there is deployed there again, and others are not touched."""
    async with Cluster() as world:
        world.host.add_image(APP, [BASE, b"app"])
        await world.say(world.streams.deployments, request("d1"))
        await world.ended("d1", within_seconds=20)
        other = world.new_engine("r0", 2)
        async with _second_agent(world, other):
            await eventually(lambda: _contest(world), within_seconds=30)
            await world.processes["agent-r0"].kill()
            await eventually(lambda: _settled(world), within_seconds=60)

            async def restored() -> bool:
                return await other.inspect(APP) is not None

            await eventually(restored, within_seconds=180)
            assert "pull" not in world.engines["r1"].counts


async def test_recreating_a_range_is_no_conflict() -> None:
    """However often, one after the other."""
    async with Cluster() as world:
        for life in range(2, 6):
            await world.processes["agent-r0"].kill()
            world.engines["r0"] = world.new_engine("r0", life)
            world.processes["agent-r0"].start()

            async def known(life: int = life) -> bool:
                found = (await world.range_keys.known("r0").load(world.bus)).value
                return found is not None and found.engine_id == f"r0.{life}"

            await eventually(known, within_seconds=60)
        assert await _settled(world)
        assert not any(isinstance(one, RangeContested) for one in await world.said(world.streams.deployments))
