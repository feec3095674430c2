"""Preflight checks of a Redis server."""

import time
from collections.abc import Mapping, Sequence

import pytest

from events.bus import BusRefused
from events.redis.client import Argument, Commands, Reply
from events.redis.preflight import Concern, preflight
from events.redis.scripts import Script, ScriptsMissing

GOOD = {
    "redis_version": "7.0.15",
    "maxmemory_policy": "noeviction",
    "role": "master",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
}


class _Server(Commands):
    """Answers INFO, TIME and the script that asks for rights as told."""

    def __init__(
        self, info: Mapping[str, str] | None, *, ahead_seconds: float = 0.0, refused: Sequence[bytes] | Exception = ()
    ) -> None:
        self._info = info
        self._ahead = ahead_seconds
        self._refused = refused

    async def call(self, *arguments: Argument) -> Reply:
        if arguments[0] == "EVALSHA":
            if isinstance(self._refused, Exception):
                raise self._refused
            return list(self._refused)
        if self._info is None:
            raise BusRefused("NOPERM this user has no permissions to run the 'info' command")
        if arguments[0] == "TIME":
            return [str(int(time.time() + self._ahead)).encode(), b"0"]
        return b"# Server\r\n" + "\r\n".join(f"{name}:{value}" for name, value in self._info.items()).encode()


async def look(server: _Server) -> list[Concern]:
    return await preflight(server, Script("rights", server, str), "test:images")


async def test_a_good_server_is_no_concern() -> None:
    """Nothing is said."""
    assert await look(_Server(GOOD)) == []


@pytest.mark.parametrize(
    ("field", "value", "text", "stops"),
    [
        ("redis_version", "6.2.7", "7.0 is the oldest that works", True),
        ("maxmemory_policy", "allkeys-lru", "set maxmemory-policy noeviction", True),
        ("role", "slave", "is a replica", False),
        ("aof_enabled", "0", "set appendonly yes", False),
        ("rdb_last_bgsave_status", "err", "cannot write to its disk (rdb_last_bgsave_status)", False),
    ],
)
async def test_each_thing_wrong_is_one_line(field: str, value: str, text: str, stops: bool) -> None:
    """With what to do, and whether going on would lose events."""
    (concern,) = await look(_Server({**GOOD, field: value}))
    assert text in concern.text
    assert concern.stops is stops


async def test_clocks_that_differ_are_told() -> None:
    """Leases and timers are Redis' own, but ids and logs are read side by side."""
    (concern,) = await look(_Server(GOOD, ahead_seconds=90))
    assert "differ by" in concern.text


async def test_a_user_without_the_right_to_ask_is_told_nothing() -> None:
    """An agent's user sees its range only."""
    assert await look(_Server(None)) == []


async def test_missing_rights_are_named() -> None:
    """Which commands on which stream: found before the first event is."""
    (concern,) = await look(_Server(GOOD, refused=[b"XADD", b"XTRIM"]))
    assert "XADD, XTRIM on test:images" in concern.text
    assert concern.stops


async def test_a_user_that_may_run_no_script_is_told() -> None:
    """The bus is nothing but scripts."""
    (concern,) = await look(_Server(GOOD, refused=BusRefused("NOPERM evalsha")))
    assert "EVALSHA" in concern.text
    assert concern.stops


async def test_scripts_that_nobody_loaded_are_no_reason_to_stop() -> None:
    """A range's agent may load none: it waits for a service that does."""
    (concern,) = await look(_Server(GOOD, refused=ScriptsMissing("Redis has no scripts of the bus yet")))
    assert "no scripts" in concern.text
    assert not concern.stops
