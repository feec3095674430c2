"""Replication of a Redis server, as it tells it."""

from __future__ import annotations

import asyncio

import pytest

from events.bus import BusRefused
from events.redis.client import Argument, Commands, Reply
from events.redis.replication import Replica, Replication, read_replication, replication

TOLD = """# Replication\r
role:master\r
connected_slaves:3\r
slave0:ip=10.0.0.2,port=6379,state=online,offset=90,lag=1\r
slave1:ip=fd00::2,port=6380,state=wait_bgsave,offset=0,lag=0\r
slave2:ip=,port=70000,state=online\r
master_repl_offset:100\r
"""


class _Server(Commands):
    def __init__(self, told: str | None) -> None:
        self._told = told

    async def call(self, *arguments: Argument) -> Reply:
        if self._told is None:
            raise BusRefused("NOPERM")
        return self._told.encode()


def test_replicas_are_read_with_what_they_lack() -> None:
    """One that still copies is not online; a line that cannot be read is left out."""
    assert read_replication(TOLD) == Replication(
        "master",
        (
            Replica("10.0.0.2:6379", online=True, lag_seconds=1, behind_bytes=10),
            Replica("[fd00::2]:6380", online=False, lag_seconds=0, behind_bytes=100),
        ),
    )
    assert read_replication("role:slave\nmaster_host:10.0.0.1\n") == Replication("slave")


@pytest.mark.parametrize(
    ("answer", "login"), [(b"-WRONGPASS invalid username-password pair\r\n", "refused"), (b"+OK\r\n", "in")]
)
async def test_each_replica_is_tried_with_our_account(answer: bytes, login: str) -> None:
    """One that does not know us would shut everybody out; one that nobody reaches from here is away."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        told = f"role:master\nslave0:ip=127.0.0.1,port={port},state=online,offset=1,lag=0\n"
        account = {"username": "u", "password": "p"}
        found = await replication(_Server(told), account)
        assert found is not None
        assert [one.login for one in found.replicas] == [login]
    found = await replication(_Server(told), account)
    assert found is not None
    assert [one.login for one in found.replicas] == ["away"]


async def test_what_cannot_be_asked_is_not_known() -> None:
    """A user without INFO."""
    assert await replication(_Server(None), {}) is None
