"""Connections to Redis, and the mapping of its client's errors."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

from events.bus import BusDenied, BusRefused, BusUnavailable
from events.redis.bus import RedisBus
from events.redis.client import Commands
from events.streams import Streams


class Refusing:
    """A client whose every command ends in `error`."""

    def __init__(self, error: Exception) -> None:
        self.error, self.calls = error, 0

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        raise self.error

    async def aclose(self) -> None: ...


async def test_a_wrong_password_is_no_server_that_is_away() -> None:
    """To redis-py it is a broken connection; here it is said as what it is, and not tried again."""
    client = Refusing(AuthenticationError("invalid username-password pair"))
    with pytest.raises(BusDenied, match="correct the user and password"):
        await Commands(client).call("PING")
    assert client.calls == 1


async def test_a_broken_connection_is_tried_again() -> None:
    """Then the server is away."""
    client = Refusing(RedisConnectionError("reset"))
    with pytest.raises(BusUnavailable, match="Redis is unreachable") as told:
        await Commands(client).call("PING")
    assert not isinstance(told.value, BusDenied)
    assert client.calls == 3


@pytest.mark.parametrize("prefix", ["cyroid", "cyroid{}", "}cyroid{"])
async def test_a_cluster_needs_a_prefix_in_braces(prefix: str) -> None:
    """It is told before anything is connected, with the prefix that would do: no script runs across slots."""
    with pytest.raises(BusRefused, match=r"must be in braces"):
        async with RedisBus.open("redis+cluster://127.0.0.1:1", streams=Streams(prefix)):
            pass
