"""HTTP server with limits: on connections, on slow requests and slow readers, and on what errors reveal.

aiohttp bounds the size of a request's head, and nothing in time. Here a head that began must be whole within a while
(408), a connection without a request is closed, a reader that takes nothing is cut off, and a client that has too many
connections gets 503 for more. Every error of the protocol is a problem document that repeats no byte of the request,
and no answer names a program's version.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from aiohttp import http_exceptions, web
from aiohttp.web_protocol import RequestHandler

from services.errors.register import REGISTER, ErrorEntry
from services.runtime.problem_response import PROBLEM_TYPE, internal_error, problem_of, response_of
from services.runtime.telemetry import get_logger

log = get_logger(role="http")
SERVER_NAME = "cyroid-images"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Limits of one listener.

    head_seconds            from the first byte of a request to the end of its head
    idle_seconds            a connection without a request
    write_seconds           for an answer that is sent in one go
    connections             over all clients
    connections_per_client  of one address
    """

    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    write_seconds: float = 60.0
    connections: int = 512
    connections_per_client: int = 128


@asynccontextmanager
async def listening(
    app: web.Application,
    host: str | None,
    port: int,
    *,
    limits: HttpLimits | None = None,
    goodbye_seconds: float = 2.0,
    handler_cancellation: bool = False,
    auto_decompress: bool = True,
) -> AsyncIterator[tuple[str, int]]:
    """Serve `app` while inside; yields the address. Raises OSError when it cannot be listened at.

    handler_cancellation: a client that leaves ends its request at once.
    auto_decompress: a body with a `Content-Encoding` is decompressed, whatever that makes of it.
    """
    granted = limits or HttpLimits()
    app.on_response_prepare.append(_without_version)
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=goodbye_seconds, handler_cancellation=handler_cancellation
    )
    await runner.setup()
    try:
        manager = runner.server
        assert manager is not None
        loop = asyncio.get_running_loop()
        open_connections: Counter[str] = Counter()
        server = await loop.create_server(
            lambda: _Connection(manager, granted, open_connections, auto_decompress=auto_decompress), host, port
        )
        try:
            address = server.sockets[0].getsockname()
            yield str(address[0]), int(address[1])
        finally:
            server.close()
    finally:
        await runner.cleanup()


async def _without_version(request: web.BaseRequest, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER_NAME


class _Connection(RequestHandler):
    """aiohttp's connection with the limits of its listener. `open_connections` counts those of every client."""

    __slots__ = ("_client", "_head_timer", "_limits", "_open")

    def __init__(
        self, manager: web.Server, limits: HttpLimits, open_connections: Counter[str], *, auto_decompress: bool
    ) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # None is what turns it off
            keepalive_timeout=limits.idle_seconds,
            lingering_time=1.0,
            auto_decompress=auto_decompress,
        )
        self._limits = limits
        self._open = open_connections
        self._client: str | None = None
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        peer = transport.get_extra_info("peername")
        client = str(peer[0]) if peer else "local"
        if self._open.total() >= self._limits.connections or self._open[client] >= self._limits.connections_per_client:
            _refuse(transport, REGISTER["too_many"], "there are too many connections: close some")
            self._manager = None  # it was never one of the server's
            return
        self._client = client
        self._open[client] += 1
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        if self._client is not None:
            self._open[self._client] -= 1
            if not self._open[self._client]:
                del self._open[self._client]
            self._client = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages or self._current_request is not None or self._waiter is None or self._waiter.done():
            self._stop_timer()
        elif data and self._head_timer is None:
            self._head_timer = asyncio.get_running_loop().call_later(self._limits.head_seconds, self._head_too_slow)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if isinstance(self.transport, asyncio.Transport):
            seconds = f"{self._limits.head_seconds:g}"
            _refuse(self.transport, REGISTER["timeout"], f"the request's head did not come within {seconds} seconds")
        self.force_close()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        try:
            async with asyncio.timeout(self._limits.write_seconds):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            return resp, True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer requests that are not HTTP, and errors that an application did not handle."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: another one cannot be sent")
        if status < 500:
            response = _malformed(exc)
        else:
            log.error("request failed", method=request.method, exc_info=exc)
            response = internal_error()
        response.headers["Server"] = SERVER_NAME
        response.force_close()
        return response


def _malformed(problem: BaseException | None) -> web.Response:
    if isinstance(problem, http_exceptions.LineTooLong):
        return response_of(REGISTER["bad_request"], "a line or a header of the request is too long")
    return response_of(REGISTER["bad_request"], "the request does not follow the HTTP standard")


def _refuse(transport: asyncio.Transport, entry: ErrorEntry, detail: str) -> None:
    """Answer without reading the request, and close."""
    body = msgspec.json.encode(problem_of(entry, detail))
    head = (
        f"HTTP/1.1 {entry.http_status} {entry.title}\r\nContent-Type: {PROBLEM_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\nServer: {SERVER_NAME}\r\n\r\n"
    )
    transport.write(head.encode() + body)
    transport.close()
