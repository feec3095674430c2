"""TCP server of fault proxies and valves."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from deploy.machine.tcp_server import tcp_server


@pytest.mark.parametrize("steps", range(6))
async def test_whatever_was_accepted_is_closed_with_it(steps: int) -> None:
    """In whatever step of the loop the connection is by then: its task may not have begun."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_server(serve) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(steps):
            await asyncio.sleep(0)
    with suppress(ConnectionResetError):
        async with asyncio.timeout(5):
            assert await reader.read() == b""
    writer.close()
    with suppress(ConnectionResetError):
        await writer.wait_closed()
