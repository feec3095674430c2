"""A TCP relay in front of a server, with a valve in the direction of the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deploy.machine.tcp_server import tcp_server


class Valve:
    """Relays to `host:port`. After `limit_bytes` to clients (None: no limit) nothing flows until `open`."""

    def __init__(self, upstream: str) -> None:
        self._host, _, port = upstream.rpartition(":")
        self._port = int(port)
        self._limit: int | None = None
        self._changed = asyncio.Event()
        self._connections: set[asyncio.StreamWriter] = set()
        self._shut = False
        self.passed_bytes = 0
        self.address = ""

    @classmethod
    @asynccontextmanager
    async def before(cls, upstream: str) -> AsyncIterator[Valve]:
        """A valve on a loopback port of its own, closed with everything that flows on leaving."""
        valve = cls(upstream)
        async with tcp_server(valve._relay) as port:
            valve.address = f"127.0.0.1:{port}"
            try:
                yield valve
            finally:
                valve.cut()
                valve.open()

    def close_after(self, limit_bytes: int) -> None:
        """Let so many bytes more pass, then none."""
        self._limit = self.passed_bytes + limit_bytes

    def open(self) -> None:
        """Let everything pass."""
        self._limit = None
        self._wake()

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._connections:
            writer.transport.abort()

    def shut(self) -> None:
        """As a server that was stopped: break every connection, and every one that comes."""
        self._shut = True
        self.cut()

    @property
    def connections(self) -> int:
        """Clients connected now."""
        return len(self._connections)

    async def closed(self) -> None:
        """Return when the limit is reached."""
        while self._limit is None or self.passed_bytes < self._limit:
            await self._changed.wait()

    async def gone(self) -> None:
        """Return when no client is connected."""
        while self._connections:
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        if self._shut:
            self._forget(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            self._forget(writer)
            return
        tasks = [
            asyncio.ensure_future(self._send(reader, up_writer)),
            asyncio.ensure_future(self._answer(up_reader, writer)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            up_writer.transport.abort()
            self._forget(writer)

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        self._connections.discard(writer)
        self._wake()

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            while self._limit is not None and self.passed_bytes >= self._limit:
                await self._changed.wait()
            self.passed_bytes += len(chunk)
            writer.write(chunk)
            self._wake()
            await writer.drain()
