"""TCP server on loopback whose connections end with it, also one that was accepted in the moment in which it closed.

asyncio runs each connection in a task and forgets it. One that is cancelled before its first step closes nothing: its
socket is left to the garbage collector.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

#: Runs one connection. It may end by the errors of a connection that broke.
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def tcp_server(serve: Serve) -> AsyncIterator[int]:
    """The port of a server; leaving ends its connections and waits for them."""
    tasks: set[asyncio.Future[None]] = set()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)

        def ended(task: asyncio.Future[None]) -> None:
            writer.transport.abort()
            tasks.discard(task)

        task.add_done_callback(ended)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0)  # what was accepted just now comes to `accepted`
        while tasks:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.sleep(0)
        await server.wait_closed()
