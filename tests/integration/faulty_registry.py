"""A proxy before a registry that does one thing wrong, at one request: the tests' own."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import aiohttp
from aiohttp import web

Fault = Literal[
    "error_500",  # answers 500, the registry never hears of the request
    "error_503",
    "drop",  # closes the connection without an answer
    "stall",  # never answers
    "lost_answer",  # the registry did it, the answer is lost
    "cut_request",  # the registry gets half of the body
    "corrupt_request",  # the registry gets a body with one bit changed
    "cut_answer",  # half of the answer's body comes
    "corrupt_answer",  # the answer's body has one bit changed
]
FAULTS: tuple[Fault, ...] = (
    "error_500",
    "error_503",
    "drop",
    "stall",
    "lost_answer",
    "cut_request",
    "corrupt_request",
    "cut_answer",
    "corrupt_answer",
)
_KEPT = {"content-type", "location", "docker-content-digest", "range", "docker-upload-uuid", "link"}


class FaultyRegistry:
    """`requests` is what came, as (method, path); the request of number `at` goes wrong as `fault` says."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self.requests: list[tuple[str, str]] = []
        self.fault: Fault = "drop"
        self.at: int | None = None
        self.struck = False
        self.address = ""
        self._upstream = upstream
        self._session = session

    def arm(self, fault: Fault, at: int | None) -> None:
        """Start counting anew."""
        self.requests.clear()
        self.fault, self.at, self.struck = fault, at, False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        number = len(self.requests)
        self.requests.append((request.method, request.path))
        if number != self.at:
            return await self._forward(request, None)
        self.struck = True
        if self.fault in {"error_500", "error_503"}:
            return web.Response(status=int(self.fault[-3:]), text="out of order")
        if self.fault == "stall":
            await asyncio.Event().wait()
        if self.fault == "drop":
            return _hang_up(request)
        return await self._forward(request, self.fault)

    async def _forward(self, request: web.Request, fault: Fault | None) -> web.StreamResponse:
        body = await request.read()
        if body and fault == "corrupt_request":
            body = _flipped(body)
        cut = fault == "cut_request" and len(body) > 1
        if cut:
            body = body[: len(body) // 2]
        sent = {name: value for name, value in request.headers.items() if name.lower() in {"content-type", "accept"}}
        sent |= {"Host": request.headers["Host"]}
        sent |= {"Range": request.headers["Range"]} if "Range" in request.headers else {}
        async with self._session.request(
            request.method, f"{self._upstream}{request.raw_path}", data=io.BytesIO(body) if body else None, headers=sent
        ) as answer:
            content = await answer.read()
            headers = {name: value for name, value in answer.headers.items() if name.lower() in _KEPT}
            status, length = answer.status, answer.headers.get("Content-Length", "0")
        if cut or fault == "lost_answer":
            return _hang_up(request)
        if request.method == "HEAD":
            return web.Response(status=status, headers={**headers, "Content-Length": length})
        if content and fault == "corrupt_answer":
            content = _flipped(content)
        if len(content) > 1 and fault == "cut_answer":
            response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(content))})
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
            _hang_up(request)
            return response
        return web.Response(status=status, body=content, headers=headers)


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@asynccontextmanager
async def faulty_registry(upstream: str) -> AsyncIterator[FaultyRegistry]:
    """The proxy, on a loopback port of its own."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        proxy = FaultyRegistry(upstream, session)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            proxy.address = "{}:{}".format(*runner.addresses[0][:2])
            yield proxy
        finally:
            await runner.cleanup()
