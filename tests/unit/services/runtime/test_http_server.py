"""Listening with limits, by a client that speaks bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from services.runtime.http_server import HttpLimits, listening
from services.runtime.problem_middleware import problems

SOON = HttpLimits(head_seconds=0.05, idle_seconds=0.05, write_seconds=0.05)


@asynccontextmanager
async def _server(limits: HttpLimits | None = None, answer: bytes = b"ok") -> AsyncIterator[int]:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=answer)

    async def broken(request: web.Request) -> web.Response:
        raise ZeroDivisionError("secret insides")

    app = web.Application(middlewares=[problems])
    app.router.add_post("/", handle)
    app.router.add_get("/", handle)
    app.router.add_get("/broken", broken)
    async with listening(app, "127.0.0.1", 0, limits=limits) as (_, port):
        yield port


async def _talk(port: int, *parts: bytes, end: bool = False) -> bytes:
    """Everything the server says until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
        if end:
            writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


def _problem(said: bytes) -> tuple[int, Any]:
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"Python" not in head
    assert b"aiohttp" not in head
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03secret",
        b"GET secret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: secret\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"s" * 20_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_problem_that_repeats_nothing(request_bytes: bytes) -> None:
    """400, without the bytes that came."""
    async with _server() as port:
        status, problem = _problem(await _talk(port, request_bytes))
    assert (status, problem["code"]) == (400, "bad_request")
    assert "secret" not in json.dumps(problem)


@pytest.mark.parametrize("part", [b"GET / HTTP/1.1\r\n", b"G", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n"])
async def test_a_head_that_does_not_end_is_cut_off(part: bytes) -> None:
    """408: half requests are a way to hold connections."""
    async with _server(HttpLimits(head_seconds=0.05)) as port:
        status, problem = _problem(await _talk(port, part))
    assert (status, problem["code"]) == (408, "timeout")


async def test_a_connection_without_a_request_is_closed() -> None:
    """Without a word: nobody asked."""
    async with _server(SOON) as port:
        assert await _talk(port) == b""


async def test_one_client_has_so_many_connections() -> None:
    """503 for the next; when one is closed, another one is let in."""
    async with _server(HttpLimits(connections_per_client=2)) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        status, problem = _problem(await _talk(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
        assert (status, problem["code"], problem["retryable"]) == (503, "too_many", True)
        held[0][1].write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await held[0][0].read()).endswith(b"ok")  # closed by the server, so it counts no more
        assert (await _talk(port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).endswith(b"ok")
        for _, writer in held:
            writer.close()


async def test_all_clients_together_have_so_many_connections() -> None:
    """A process has files for so many."""
    async with _server(HttpLimits(connections=1)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        status, _ = _problem(await _talk(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
        writer.close()
    assert status == 503


async def test_a_reader_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that nobody takes holds its memory."""
    cut_off = asyncio.Event()
    abort = asyncio.selector_events._SelectorTransport.abort  # type: ignore[attr-defined]  # not in the stubs

    def aborted(transport: Any) -> None:
        abort(transport)
        cut_off.set()

    monkeypatch.setattr("asyncio.selector_events._SelectorTransport.abort", aborted)
    async with _server(HttpLimits(write_seconds=0.05), answer=bytes(50_000_000)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readline()
        transport = writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()
        async with asyncio.timeout(20):
            await cut_off.wait()
        transport.resume_reading()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(50_000_000)
        writer.close()


async def test_requests_that_are_well_are_answered_one_after_the_other() -> None:
    """On one connection, a body in pieces included; a slow start within the limit is no offence."""
    first = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    async with _server() as port:
        said = await _talk(port, first[:9], first[9:], b"a", b"b", last)
    assert said.count(b"HTTP/1.1 200 OK") == 2
    assert said.count(b"Server: cyroid-images") == 2


async def test_what_an_application_lets_out_is_500_without_its_insides() -> None:
    """The trace is in the log."""
    async with _server() as port:
        status, problem = _problem(await _talk(port, b"GET /broken HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    assert (status, problem["code"]) == (500, "internal_error")
    assert "secret" not in json.dumps(problem)
