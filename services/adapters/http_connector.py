"""HTTP connectors of the clients of engines and the registry: closed connections end, whatever the server does.

Closing a connection waits until what is still to be written has been taken. A server that has stopped reading (it
refused an archive whose body is still on its way, its disk is full, or it hangs) never takes it, and the socket stays
open for as long as the process runs. So what was closed and still has something to write is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from weakref import WeakSet

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace


class _Cutting(aiohttp.BaseConnector):
    """Knows the transports it has given out."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # what the connector beside this one takes
        self._given: WeakSet[asyncio.Transport] = WeakSet()

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        connection = await super().connect(req, traces, timeout)
        transport = connection.transport
        # TLS ends its connections by itself: asyncio gives the closing handshake a bounded time.
        if transport is not None and transport.get_extra_info("sslcontext") is None:
            self._given.add(transport)
        return connection

    async def cut(self) -> None:
        """Cut off every connection that was closed and still has something to write."""
        _abort(one for one in self._given if one.is_closing() and one.get_write_buffer_size())
        await asyncio.sleep(0)  # a transport ends in the loop's next turn


class UnixConnector(_Cutting, aiohttp.UnixConnector):
    """For `unix:///path`."""


class TCPConnector(_Cutting, aiohttp.TCPConnector):
    """For `tcp://host:port` and `http(s)://host:port`."""


def _abort(transports: Iterable[asyncio.Transport]) -> None:
    for transport in list(transports):
        transport.abort()
