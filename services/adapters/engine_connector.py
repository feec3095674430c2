"""Connections to an engine that end when we are done with them, whatever the engine does.

Closing a connection waits until what is still to be written has been taken. An engine that has stopped reading (it
refused an archive whose body is still on its way, or it hangs) never takes it, and the socket stays open for as long as
the process runs. So what was closed and still has something to write is cut off.
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
        if connection.transport is not None:
            self._given.add(connection.transport)
        return connection

    async def cut(self) -> None:
        """Cut off every connection that was closed but has not ended."""
        _abort(transport for transport in self._given if transport.is_closing())
        await asyncio.sleep(0)  # a transport ends in the loop's next turn


class UnixConnector(_Cutting, aiohttp.UnixConnector):
    """For `unix:///path`."""


class TCPConnector(_Cutting, aiohttp.TCPConnector):
    """For `tcp://host:port`."""


def _abort(transports: Iterable[asyncio.Transport]) -> None:
    for transport in list(transports):
        transport.abort()
