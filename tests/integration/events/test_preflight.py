"""Preflight against a real server and its users."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as redis

from deploy.container.acl import gateway_rules, services_rules
from events.redis.bus import RedisBus
from events.streams import Streams
from tests.laboratory import RedisServer

USER, PASSWORD = "preflight", "secret"


async def _texts(server: RedisServer, prefix: str, rules: list[str], stream: str | None = None) -> list[str]:
    """What a user with these rights is told."""
    async with redis.Redis(port=server.port, protocol=2, legacy_responses=False) as admin:
        told: Any = admin.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rules)  # type: ignore[no-untyped-call]
        await told
    url = f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0"
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
