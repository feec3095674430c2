"""Preflight against a real server and its users."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis.asyncio as redis

from deploy.container.acl import gateway_rules, services_rules
from events.redis.bus import RedisBus
from events.streams import Streams
from services.adapters.openers import open_bus
from services.settings import Settings
from tests.laboratory import RedisServer

USER, PASSWORD = "preflight", "secret"


async def _url(server: RedisServer, rules: list[str]) -> str:
    """As a user with these rights."""
    async with redis.Redis(port=server.port, protocol=2, legacy_responses=False) as admin:
        told: Any = admin.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rules)  # type: ignore[no-untyped-call]
        await told
    return f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0"


async def _texts(server: RedisServer, prefix: str, rules: list[str], stream: str | None = None) -> list[str]:
    """What a user with these rights is told."""
    url = await _url(server, rules)
    async with RedisBus.open(url, streams=Streams(prefix)) as bus:
        return [concern.text for concern in await bus.preflight(stream)]


async def test_the_rights_that_the_stack_gives_are_enough(redis_server: RedisServer, key_prefix: str) -> None:
    """For the services on their streams, and for the range gateway on those of ranges."""
    assert await _texts(redis_server, key_prefix, services_rules(key_prefix)) == []
    inbox = Streams(key_prefix).inbox("r1")
    assert await _texts(redis_server, key_prefix, gateway_rules(key_prefix), inbox) == []


@pytest.mark.parametrize("command", ["XADD", "XCLAIM", "HINCRBY", "ZADD"])
async def test_a_right_that_is_missing_is_named(redis_server: RedisServer, key_prefix: str, command: str) -> None:
    """One command less than the stack gives: that one is named, and no other."""
    rules = [*services_rules(key_prefix), f"-{command.lower()}"]
    (text,) = await _texts(redis_server, key_prefix, rules)
    assert f"may not run {command} on {key_prefix}:images" in text


async def test_keys_of_others_are_out_of_reach(redis_server: RedisServer, key_prefix: str) -> None:
    """The gateway's user on the services' stream: whatever it may do elsewhere, it is told so."""
    (text,) = await _texts(redis_server, key_prefix, gateway_rules(key_prefix))
    assert f"may not run the bus's scripts on {key_prefix}:images" in text


async def test_the_connections_of_agents_are_counted(redis_server: RedisServer, key_prefix: str) -> None:
    """By a user with the services' rights: two agents that were at work have two or more, and others are not theirs."""
    url = await _url(redis_server, services_rules(key_prefix))
    agents = [Settings(redis_url=url, key_prefix=key_prefix, range_id=f"r{number}") for number in range(2)]
    async with RedisBus.open(url, streams=Streams(key_prefix)) as bus, AsyncExitStack() as stack:
        for settings in agents:
            agent = await stack.enter_async_context(open_bus(settings))
            await agent.members(f"{key_prefix}:index:none")
        found = await bus.connections()
    assert found is not None
    assert (found.agents, found.of_agents) == (2, 2)
    assert found.agents < found.used <= found.limit
