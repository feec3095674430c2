"""Streamed answers of an engine, bytes or progress lines, each wait bounded in time.

An engine's error comes as a line of a stream that began with status 200, and a stall that aiohttp cuts off reads as
the stream's end: only a line that reports success counts as success.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from events.malformed import MALFORMED
from services.adapters.engine_errors import describe_connection, engine_error
from services.core.closing import closing
from services.errors import CyroidError, EngineUnavailable, Stalled, TransferFailed
from services.ports import Chunks


class Line(msgspec.Struct, frozen=True, rename={"error_detail": "errorDetail", "detail": "progressDetail"}):
    """One line of a progress stream (engine API, "JSON message")."""

    status: str = ""
    stream: str = ""
    id: str | None = None
    detail: dict[str, Any] | None = None
    error: str | None = None
    error_detail: dict[str, Any] | None = None
    aux: Any = None

    @property
    def problem(self) -> str | None:
        """What went wrong, if this line says so."""
        told = (self.error_detail or {}).get("message")
        if self.stream.startswith("Error unpacking image"):  # 28.5, containerd store: names it and goes on
            return self.stream.strip()
        return told if isinstance(told, str) and told else self.error


#: Turns of the event loop that a cancelled task gets to leave the body.
_TURNS = 10
#: A line of progress; an error may carry what a build wrote.
LINE_BYTES = 1024 * 1024
_LINE = msgspec.json.Decoder(Line)


class Reply:
    """A streamed answer. Any byte in either direction shows that the engine is alive."""

    def __init__(self, what: str, where: str, quiet_seconds: float) -> None:
        self._what = what
        self._where = where
        self._quiet_seconds = quiet_seconds
        self._deadline: asyncio.Timeout | None = None
        self._lost: BaseException | None = None
        self._body: AsyncGenerator[bytes, None] | None = None
        self._advanced_at = asyncio.get_running_loop().time()
        self.response: aiohttp.ClientResponse | None = None

    def bear(self, quiet_seconds: float) -> None:
        """Set how long the engine may be silent after its next line."""
        self._quiet_seconds = quiet_seconds

    def touch(self) -> None:
        """Note that a byte moved."""
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._quiet_seconds)

    def feed(self, body: Chunks) -> AsyncIterator[bytes]:
        """The request's body, chunk by chunk. Remembers why it broke, which aiohttp does not report."""
        self._body = self._fed(body)
        return self._body

    async def _fed(self, body: Chunks) -> AsyncGenerator[bytes, None]:
        try:
            async with closing(body):
                async for chunk in body:
                    self.touch()
                    yield chunk
        except Exception as problem:
            self._lost = problem
            raise
        self.touch()

    async def end_body(self) -> None:
        """Close the request's body, which aiohttp leaves where it stopped. The response has been closed before."""
        if self._body is None:
            return
        for _ in range(_TURNS):
            try:
                await self._body.aclose()
                return
            except RuntimeError:  # it runs: what sends it was cancelled, and leaves it in one of the next turns
                await asyncio.sleep(0)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Wait for the engine, at most `quiet_seconds` after the last byte in either direction."""
        try:
            async with asyncio.timeout(self._quiet_seconds) as self._deadline:
                yield
        except TimeoutError as problem:
            raise self._stalled() from problem
        except (aiohttp.ClientError, ConnectionError) as problem:
            if self._lost is not None:
                raise self._lost from problem
            raise EngineUnavailable(describe_connection(self._what, self._where, problem)) from problem
        finally:
            self._deadline = None

    def advanced(self, anything: bool) -> None:
        """Called for each line of progress. Raises Stalled when the engine only repeats itself for too long."""
        now = asyncio.get_running_loop().time()
        if anything:
            self._advanced_at = now
        elif now - self._advanced_at > self._quiet_seconds:
            raise self._stalled()

    def _stalled(self) -> Stalled:
        return Stalled(
            f"{self._what}: nothing moved to or from the engine at {self._where} for {self._quiet_seconds:g} s; "
            "see whether its disk or its registry hangs, then try again"
        )

    async def next_bytes(self) -> bytes:
        """The bytes that have arrived, waiting for at least one; b"" at the end."""
        assert self.response is not None
        async with self.watched():
            return await self.response.content.readany()


class ByteStream(AsyncIterator[bytes]):
    """The body of the answer as chunks."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def __anext__(self) -> bytes:
        if chunk := await self._reply.next_bytes():
            return chunk
        raise StopAsyncIteration


class LineStream(AsyncIterator[Line]):
    """The body as progress lines; a line that reports an error is raised as one.

    The engine may be a range's own and hostile: a line without an end is not collected for ever.
    """

    def __init__(self, reply: Reply, what: str, where: str, otherwise: type[CyroidError] = TransferFailed) -> None:
        self._reply = reply
        self._what = what
        self._where = where
        self._otherwise = otherwise
        self._ready: list[bytes] = []
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._ended = False

    async def __anext__(self) -> Line:
        while True:
            while self._ready:
                text = self._ready.pop().strip()
                if text:
                    return self._parse(text)
            if self._ended:
                raise StopAsyncIteration
            chunk = await self._reply.next_bytes()
            self._ended = not chunk
            *lines, rest = chunk.split(b"\n")
            if lines or self._ended:
                first = b"".join([*self._rest, lines[0] if lines else b""])
                self._ready = [first, *lines[1:]][::-1]
                self._rest, self._rest_bytes = [], 0
            self._rest.append(rest)
            self._rest_bytes += len(rest)
            if self._rest_bytes > LINE_BYTES:
                raise self._otherwise(
                    f"{self._what}: the engine at {self._where} sends a line of more than {LINE_BYTES} bytes"
                )

    def _parse(self, text: bytes) -> Line:
        try:
            line = _LINE.decode(text)
        except MALFORMED as problem:
            raise self._otherwise(f"{self._what}: the engine at {self._where} said {text[:200]!r}") from problem
        if line.problem is not None:
            raise engine_error(0, line.problem, self._what, self._where, self._otherwise)
        return line
