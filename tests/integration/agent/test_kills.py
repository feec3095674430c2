"""The agent as a process of its own, killed in the middle: the next one ends the transfer, and nothing is left over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from events.messages import TransferCancelled
from tests.integration.agent.site import MEGABYTE, RANGE, Site, until
from tests.integration.agent.valve import Valve
from tests.integration.engines import build
from tests.laboratory import Lab, RedisServer, RoleServer

pytestmark = pytest.mark.real


@pytest.fixture
def agent(site: Site, lab: Lab, redis_server: RedisServer, key_prefix: str, unique: str) -> Iterator[RoleServer]:
    """`serve agent` for the site's range, with a short lease."""
    name = f"agent-{unique}"
    settings = {
        "redis_url": redis_server.url,
        "key_prefix": key_prefix,
        "range_id": RANGE,
        "engine_url": site.engine_url,
        "lease_seconds": 3,
        "beat_seconds": 1,
        "drain_seconds": 1,
    }
    server = lab.start(RoleServer(name, lab.place(name), lab.mark, roles=["agent"], settings=settings))
    yield server
    server.stop()


def _start_again(agent: RoleServer) -> None:
    agent.kill()
    agent.start()


async def test_killed_in_the_middle_of_a_pull(site: Site, agent: RoleServer, unique: str) -> None:
    """The engine stops with the agent's connection; the next agent pulls again and names the image."""
    name = f"docker.io/{unique}/app:1"
    await build(site.host, name, {"a": os.urandom(30 * MEGABYTE)})
    pushed = await site.push(name)
    async with Valve.before(site.registry.address) as valve:
        valve.close_after(5 * MEGABYTE)
        await site.say(site.pull_request(pushed, address=valve.address))
        await valve.closed()
        await asyncio.to_thread(_start_again, agent)
        valve.open()
        ready = await site.ready()
    assert ready.how == "pulled"
    await site.assert_named_alone(name, pushed.image_id)


async def test_killed_in_the_middle_of_a_load(site: Site, agent: RoleServer, unique: str) -> None:
    """The next agent finds the offer used, asks again, and loads with the new one."""
    name = f"docker.io/{unique}/app:1"
    image = await build(site.host, name, {"a": os.urandom(30 * MEGABYTE)})
    request = site.tar_request(image, name)
    async with site.tar_server(), Valve.before(site.tar_url.removeprefix("http://")) as valve:
        await site.say(request)
        valve.close_after(5 * MEGABYTE)
        await site.say(await site.offer(request, await site.asks_for_tar(), url=f"http://{valve.address}"))
        await valve.closed()
        await asyncio.to_thread(_start_again, agent)
        valve.open()
        asked = await site.asks_for_tar(skip=1)
        assert asked.reason.code == "offer_refused"
        assert await site.engine.inspect(name) is None
        await site.say(await site.offer(request, asked))
        ready = await site.ready(skip=2)
    assert ready.how == "loaded"
    await site.assert_named_alone(name, image.local_id)


async def test_cancelled_while_no_agent_was_there(site: Site, agent: RoleServer, unique: str) -> None:
    """The next agent takes up the pull that was under way, hears that nobody wants it, and leaves nothing."""
    name = f"docker.io/{unique}/app:1"
    await build(site.host, name, {"a": os.urandom(30 * MEGABYTE)})
    pushed = await site.push(name)
    async with Valve.before(site.registry.address) as valve:
        valve.close_after(5 * MEGABYTE)
        await site.say(site.pull_request(pushed, address=valve.address))
        await valve.closed()
        agent.kill()
        await site.say(TransferCancelled(transfer_id="t1"))
        await asyncio.to_thread(agent.start)
        answer = await site.answer()
        valve.open()
    assert getattr(answer, "error", None) is not None
    assert await site.engine.inspect(pushed.image_id) is None


async def test_the_heart_stops_with_the_agent(site: Site, agent: RoleServer) -> None:
    """An agent that was killed is missed after its beats have not come."""

    async def beats() -> bool:
        return await site.bus.beats([site.streams.alive(RANGE)]) != [None]

    async def silent() -> bool:
        return not await beats()

    await until(beats)
    agent.kill()
    await until(silent, seconds=30)
