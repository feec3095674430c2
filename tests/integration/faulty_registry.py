"""Faulty proxy in front of a registry: it breaks one chosen request in one chosen way; bodies stream through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

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
    "stall_request",  # the registry gets half of the body, then nothing
    "stall_answer",  # half of the answer's body comes, then nothing
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
    "stall_request",
    "stall_answer",
)
_SENT = {"content-type", "content-length", "accept", "host", "range"}
_KEPT = {
    "content-type",
    "content-length",
    "content-range",
    "location",
    "docker-content-digest",
    "range",
    "docker-upload-uuid",
    "link",
}
#: Where the middle of a body of unknown length is taken to be.
_EARLY = 1000


class FaultyRegistry:
    """`requests` is what came, as (method, path); the request of number `at` goes wrong as `fault` says.

    `swallows_manifests`: each manifest is answered as if it were stored, and kept from the registry.
    """

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self.requests: list[tuple[str, str]] = []
        self.fault: Fault = "drop"
        self.at: int | None = None
        self.struck = False
        self.swallows_manifests = False
        self.address = ""
        self._upstream = upstream
        self._session = session

    def arm(self, fault: Fault, at: int | None) -> None:
        """Start counting anew."""
        self.requests.clear()
        self.fault, self.at, self.struck = fault, at, False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.swallows_manifests and request.method == "PUT" and "/manifests/" in request.path:
            await request.read()
            return web.Response(status=201, headers={"Location": request.path})
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
        sent = CIMultiDict((name, value) for name, value in request.headers.items() if name.lower() in _SENT)
        body = _through(request.content, _middle(request.content_length), _of(fault, "_request"))
        try:
            async with self._session.request(
                request.method,
                f"{self._upstream}{request.raw_path}",
                data=body if request.can_read_body else None,
                headers=sent,
            ) as answer:
                return await _answer(request, answer, fault)
        except (aiohttp.ClientError, _Cut):
            return _hang_up(request)


async def _answer(request: web.Request, answer: aiohttp.ClientResponse, fault: Fault | None) -> web.StreamResponse:
    headers = {name: value for name, value in answer.headers.items() if name.lower() in _KEPT}
    if fault == "lost_answer":
        await answer.read()
        return _hang_up(request)
    if request.method == "HEAD" or answer.status == 204:
        return web.Response(status=answer.status, headers=headers)
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    async for chunk in _through(answer.content, _middle(answer.content_length), _of(fault, "_answer")):
        await response.write(chunk)
    return response


class _Cut(Exception):
    """The fault is that it ends here."""


def _of(fault: Fault | None, side: str) -> str | None:
    return fault.removesuffix(side) if fault is not None and fault.endswith(side) else None


def _middle(length: int | None) -> int:
    return _EARLY if length is None else length // 2


async def _through(content: aiohttp.StreamReader, middle: int, fault: str | None) -> AsyncIterator[bytes]:
    """A body on its way, with what goes wrong from its byte `middle` on."""
    done = 0
    async for chunk in content.iter_any():
        at = middle - done
        done += len(chunk)
        if fault is None or not 0 <= at < len(chunk):
            yield chunk
            continue
        if at:
            yield chunk[:at]
        if fault == "cut":
            raise _Cut
        if fault == "stall":
            await asyncio.Event().wait()
        yield bytes([chunk[at] ^ 1]) + chunk[at + 1 :]


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@asynccontextmanager
async def faulty_registry(upstream: str) -> AsyncIterator[FaultyRegistry]:
    """The proxy, on a loopback port of its own."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        proxy = FaultyRegistry(upstream, session)
        async with answering(proxy.handle) as proxy.address:
            yield proxy


@asynccontextmanager
async def answering(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server on a loopback port of its own; yields `host:port`. A client that hangs up cancels its handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()
