"""Talks to one Docker engine: versions, time limits, and the engine's own errors as ours.

aiodocker finds the socket and opens the session; requests that stream are made here on that session, because of three
traps: a stall that aiohttp cuts off reads as the stream's end, leaving an iterator does not end the request, and an
engine's error comes as a line of a stream that began with status 200. So every response is kept and closed by an
`async with`, every wait is watched, and only a line that says so is a success.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import aiodocker
import aiohttp
import msgspec
from aiodocker.exceptions import DockerError

from services.adapters.engine_errors import describe_connection, engine_error
from services.errors import BadReference, CyroidError, EngineUnavailable, Stalled, TransferFailed
from services.ports import Chunks

OLDEST_API = (1, 41)
NEWEST_API = (1, 51)
"""What the tests run against: engine 20.10 speaks 1.41, engine 28.5 speaks 1.51."""

_CONNECT_SECONDS = 10.0
_READ_BUFFER_BYTES = 1 << 20
_SAFE_NAME = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]*\Z")


class Line(msgspec.Struct, frozen=True, rename={"error_detail": "errorDetail", "detail": "progressDetail"}):
    """One line of a progress stream (engine API, "JSON message")."""

    status: str = ""
    stream: str = ""
    id: str | None = None
    detail: dict[str, Any] | None = None
    error: str | None = None
    error_detail: dict[str, Any] | None = None

    @property
    def problem(self) -> str | None:
        """What went wrong, if this line says so."""
        told = (self.error_detail or {}).get("message")
        if self.stream.startswith("Error unpacking image"):  # 28.5, containerd store: names it and goes on
            return self.stream.strip()
        return told if isinstance(told, str) and told else self.error


_LINE = msgspec.json.Decoder(Line)


class Reply:
    """An answer that streams. Any byte in either direction shows that the engine is alive."""

    def __init__(self, what: str, where: str, quiet_seconds: float) -> None:
        self._what = what
        self._where = where
        self._quiet_seconds = quiet_seconds
        self._deadline: asyncio.Timeout | None = None
        self._lost: BaseException | None = None
        self._advanced_at = asyncio.get_running_loop().time()
        self.response: aiohttp.ClientResponse | None = None

    def bear(self, quiet_seconds: float) -> None:
        """How long the engine may be silent from its next word on."""
        self._quiet_seconds = quiet_seconds

    def touch(self) -> None:
        """Something moved."""
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._quiet_seconds)

    async def feed(self, body: Chunks) -> AsyncIterator[bytes]:
        """The request's body, chunk by chunk; remembers why it broke, which aiohttp does not tell."""
        try:
            async for chunk in body:
                self.touch()
                yield chunk
        except Exception as problem:
            self._lost = problem
            raise
        self.touch()

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
        """Called for each line of progress: an engine may repeat itself for ever. Raises Stalled when it does."""
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
        """What has come, waiting for at least one byte; b"" at the end."""
        assert self.response is not None
        async with self.watched():
            return await self.response.content.readany()


class ByteStream(AsyncIterator[bytes]):
    """The body as it comes."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def __anext__(self) -> bytes:
        if chunk := await self._reply.next_bytes():
            return chunk
        raise StopAsyncIteration


class LineStream(AsyncIterator[Line]):
    """The body as progress lines; a line that reports an error is raised as one."""

    def __init__(self, reply: Reply, what: str, where: str, otherwise: type[CyroidError] = TransferFailed) -> None:
        self._reply = reply
        self._what = what
        self._where = where
        self._otherwise = otherwise
        self._ready: list[bytes] = []
        self._rest = b""
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
            lines = (self._rest + chunk).split(b"\n")
            self._rest = b"" if self._ended else lines.pop()
            self._ready = lines[::-1]

    def _parse(self, text: bytes) -> Line:
        try:
            line = _LINE.decode(text)
        except msgspec.DecodeError as problem:
            raise self._otherwise(f"{self._what}: the engine at {self._where} said {text[:200]!r}") from problem
        if line.problem is not None:
            raise engine_error(0, line.problem, self._what, self._where, self._otherwise)
        return line


class EngineConnection:
    """One engine's address, with everything that is the same for all calls."""

    def __init__(self, url: str, docker: aiodocker.Docker, answer_seconds: float) -> None:
        self.url = url
        self.docker = docker
        self._answer_seconds = answer_seconds
        self._negotiated = False

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, answer_seconds: float) -> AsyncIterator[Self]:
        """`unix:///path`, `tcp://host:port` or `https://host:port`. Nothing is sent before the first call."""
        connector = _connector(url)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        try:
            # With a connector given, aiodocker makes its requests' URLs of this as it is; the socket's path is no host.
            address = "unix://localhost" if url.startswith("unix://") else url
            async with aiodocker.Docker(address, connector=connector, timeout=timeout) as docker:
                yield cls(url, docker, answer_seconds)
        finally:
            if connector is not None:
                await connector.close()

    @asynccontextmanager
    async def call(self, what: str, *, seconds: float | None = None) -> AsyncIterator[aiodocker.Docker]:
        """For a call that answers at once: bounded, with the engine's errors as ours."""
        limit = self._answer_seconds if seconds is None else seconds
        try:
            async with asyncio.timeout(limit):
                with self._translated(what):
                    await self._negotiate()
                    yield self.docker
        except TimeoutError as problem:
            raise EngineUnavailable(f"{what}: the engine at {self.url} did not answer in {limit:g} s") from problem

    @asynccontextmanager
    async def stream(
        self,
        what: str,
        method: str,
        path: str,
        *,
        quiet_seconds: float,
        params: Mapping[str, str] | list[tuple[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Chunks | None = None,
        otherwise: type[CyroidError] = TransferFailed,
    ) -> AsyncIterator[Reply]:
        """A request whose answer streams; leaving ends it on the engine's side too, by closing the connection."""
        async with self.call(what):
            pass
        reply = Reply(what, self.url, quiet_seconds)
        async with reply.watched():
            reply.response = response = await self.docker.session.request(
                method,
                f"{self.docker.docker_host}/{self.docker.api_version}/{path}",
                params=params,
                headers={"Content-Type": "application/x-tar", **(headers or {})},
                data=None if body is None else reply.feed(body),
                read_bufsize=_READ_BUFFER_BYTES,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            )
        try:
            if response.status >= 400:
                async with reply.watched():
                    text = (await response.read()).decode(errors="replace")
                raise engine_error(response.status, text, what, self.url, otherwise)
            yield reply
        finally:
            response.close()

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except DockerError as problem:
            if problem.status == 900:
                self._negotiated = False
                raise EngineUnavailable(describe_connection(what, self.url, problem.message)) from problem
            raise engine_error(problem.status, problem.message, what, self.url) from problem
        except (aiohttp.ClientError, ConnectionError) as problem:
            self._negotiated = False
            raise EngineUnavailable(describe_connection(what, self.url, problem)) from problem

    async def _negotiate(self) -> None:
        """The newest API both sides know (engine API, "Versioning"); asked again after the engine was away."""
        if self._negotiated:
            return
        async with self.docker.session.get(f"{self.docker.docker_host}/version") as response:
            response.raise_for_status()
            said = await response.json()
        newest, oldest = _version(said["ApiVersion"]), _version(said.get("MinAPIVersion") or "1.12")
        chosen = min(newest, NEWEST_API)
        if chosen < OLDEST_API or oldest > chosen:
            raise EngineUnavailable(
                f"the engine at {self.url} ({said.get('Version')}) speaks API {said.get('MinAPIVersion')} to "
                f"{said['ApiVersion']}; needed is one of {_text(OLDEST_API)} to {_text(NEWEST_API)}",
                code="engine_too_old" if chosen < OLDEST_API else "engine_too_new",
            )
        self.docker.api_version = f"v{_text(chosen)}"
        self._negotiated = True


def image_name(name: str) -> str:
    """`name` if it is safe as part of a URL's path; anything the engine could accept is. Raises BadReference."""
    if _SAFE_NAME.match(name) is None:
        raise BadReference(f"{name!r} is no image name or id")
    return name


def _connector(url: str) -> aiohttp.BaseConnector | None:
    # force_close: a connection kept from before the engine's restart would fail the next request.
    if url.startswith("unix://"):
        return aiohttp.UnixConnector(url.removeprefix("unix://"), force_close=True)
    if url.startswith(("tcp://", "http://")):
        return aiohttp.TCPConnector(force_close=True)
    return None


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
