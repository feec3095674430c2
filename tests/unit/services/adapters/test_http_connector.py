"""Connections to a server that has stopped reading end when the client is left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import aiohttp
import pytest

from services.adapters.http_connector import TCPConnector
from services.adapters.registry import HttpRegistry
from services.errors import CyroidError

PIECE = bytes(1024 * 1024)


async def test_no_socket_stays_open_after_an_upload_that_nobody_reads() -> None:
    """A registry whose disk is full answers and stops reading; what was on its way to it is dropped."""
    over, serving = asyncio.Event(), list[asyncio.Task[None] | None]()

    async def refuse_unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            begins = head.startswith(b"POST")
            answer = b"202 Accepted\r\nLocation: /upload" if begins else b"507 Insufficient Storage"
            writer.write(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\n\r\n")
            if not begins:
                await over.wait()
                writer.transport.abort()
                return

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield PIECE

    server = await asyncio.start_server(refuse_unread, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with HttpRegistry.open(f"http://127.0.0.1:{port}", answer_seconds=1, stall_seconds=1) as registry:
        with pytest.raises(CyroidError):
            await registry.put_blob("web", f"sha256:{'0' * 64}", 64 * len(PIECE), chunks())
    transports = [one for one in gc.get_objects() if isinstance(one, asyncio.Transport) and one.is_closing()]
    waiting = [one for one in transports if one.get_write_buffer_size()]
    over.set()
    await asyncio.gather(*(task for task in serving if task is not None), return_exceptions=True)
    server.close()
    await server.wait_closed()
    assert waiting == []


async def test_a_connection_that_has_ended_is_left_alone() -> None:
    """A transport that wrote its rest after it was closed has no event loop any more: to abort it is an error."""
    refused, read_all = asyncio.Event(), asyncio.Event()

    async def answer_and_read_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 507 Insufficient Storage\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        await refused.wait()
        while await reader.read(len(PIECE)):
            pass
        writer.close()
        read_all.set()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield PIECE

    server = await asyncio.start_server(answer_and_read_later, "127.0.0.1", 0)
    connector = TCPConnector()
    async with aiohttp.ClientSession(connector=connector) as session:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with session.put(url, data=body()) as response:
            assert response.connection is not None
            transport = response.connection.transport
            assert isinstance(transport, asyncio.Transport)
        assert transport.is_closing()
        assert transport.get_write_buffer_size() > 0
        refused.set()
        await read_all.wait()
    await connector.cut()
    server.close()
    await server.wait_closed()
