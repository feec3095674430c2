"""The client of one server, against a small one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hiredis
import pytest

from events.redis.client import Commands, connect


class Server:
    """A server that answers ECHO with the word, and everything else with OK, but for HANG."""

    def __init__(self) -> None:
        self.connections: list[asyncio.StreamWriter] = []
        self.hangs = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        words = hiredis.Reader()
        while chunk := await reader.read(65536):
            words.feed(chunk)
            while (command := words.gets()) is not False:
                if command[0] == b"HANG":
                    self.hangs.set()
                    continue
                writer.write(b"$%d\r\n%b\r\n" % (len(command[1]), command[1]) if command[0] == b"ECHO" else b"+OK\r\n")
        writer.close()


@asynccontextmanager
async def served(server: Server) -> AsyncIterator[Commands]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    client = connect(f"redis://127.0.0.1:{port}/0", socket_timeout=5.0, name="tests", prefix="cyroid")
    async with listening, Commands(client) as commands:
        yield commands


async def test_commands_one_after_the_other_need_one_connection() -> None:
    """Those at the same time have one each."""
    server = Server()
    async with served(server) as commands:
        for word in (b"one", b"two", b"x" * 10_000_000):
            assert await commands.call("ECHO", word) == word
        assert len(server.connections) == 1
        words = [b"%d" % number for number in range(5)]
        assert await asyncio.gather(*(commands.call("ECHO", word) for word in words)) == words
        assert len(server.connections) == 5


async def test_a_connection_that_the_server_closed_is_made_anew() -> None:
    """A server that restarts closes all."""
    server = Server()
    async with served(server) as commands:
        for word in (b"one", b"two", b"three"):
            assert await commands.call("ECHO", word) == word
            server.connections[-1].close()
        assert len(server.connections) == 3


async def test_the_reply_to_a_cancelled_command_is_nobody_elses() -> None:
    """Its connection is closed with it."""
    server = Server()
    async with served(server) as commands:
        hanging = asyncio.create_task(commands.call("HANG"))
        async with asyncio.timeout(5):
            await server.hangs.wait()
            assert await commands.call("ECHO", b"beside") == b"beside"
            hanging.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hanging
            words = [b"%d" % number for number in range(5)]
            assert await asyncio.gather(*(commands.call("ECHO", word) for word in words)) == words
