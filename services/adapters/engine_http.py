"""HTTP client of one Docker engine: versions, time limits, and the engine's errors as ours.

aiodocker finds the socket and opens the session; requests that stream are made here on that session, because of three
traps: a stall that aiohttp cuts off reads as the stream's end, leaving an iterator does not end the request, and an
engine's error comes as a line of a stream that began with status 200. So every response is kept and closed by an
`async with`, every wait is watched, and only a line that reports success counts as success.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Self, TypeVar

import aiodocker
import aiohttp
import msgspec
from aiodocker.exceptions import DockerError

from events.malformed import MALFORMED
from services.adapters.engine_errors import describe_connection, engine_error
from services.adapters.engine_streams import Reply
from services.adapters.http_connector import TCPConnector, UnixConnector
from services.core.images.go_json import decode
from services.core.secrets import without_password
from services.errors import BadReference, CyroidError, EngineUnavailable, TransferFailed
from services.ports import Chunks

OLDEST_API = (1, 41)
NEWEST_API = (1, 51)
"""What the tests run against: engine 20.10 speaks 1.41, engine 28.5 speaks 1.51."""

T = TypeVar("T")
_CONNECT_SECONDS = 10.0
_READ_BUFFER_BYTES = 1 << 20
#: A list of all images is the longest answer that is read whole: about 1 KiB for each.
ANSWER_LIMIT_BYTES = 32 * 1024 * 1024
_API_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")
_SAFE_NAME = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]*\Z")


class EngineConnection:
    """The HTTP connection to one engine at `address`. `url` is the address as messages show it, without secrets."""

    def __init__(
        self, url: str, docker: aiodocker.Docker, connector: UnixConnector | TCPConnector | None, answer_seconds: float
    ) -> None:
        self.address = url
        self.url = without_password(url)
        self.docker = docker
        self._connector = connector
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
                yield cls(url, docker, connector, answer_seconds)
        finally:
            if connector is not None:
                await connector.close()
                await connector.cut()

    @asynccontextmanager
    async def call(self, what: str, *, seconds: float | None = None) -> AsyncIterator[aiodocker.Docker]:
        """A call that answers at once: bounded in time, with the engine's errors as ours."""
        limit = self._answer_seconds if seconds is None else seconds
        try:
            async with asyncio.timeout(limit):
                with self._translated(what):
                    await self._negotiate()
                    yield self.docker
        except TimeoutError as problem:
            raise EngineUnavailable(f"{what}: the engine at {self.url} did not answer in {limit:g} s") from problem

    async def ask(
        self,
        what: str,
        kind: type[T],
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> T:
        """A call whose whole answer is one JSON document, bounded in size and decoded here; `object` for any answer."""
        async with (
            self.call(what, seconds=seconds) as docker,
            docker.session.request(
                method,
                f"{docker.docker_host}/{docker.api_version}/{path}",
                params=params,
                headers={"Content-Type": "application/json"},
            ) as response,
        ):
            content = await self._whole(response, what)
            if response.status >= 400:
                raise engine_error(response.status, content.decode(errors="replace"), what, self.url)
            return content if kind is object else decode(content, kind)  # type: ignore[return-value]  # any answer

    async def _whole(self, response: aiohttp.ClientResponse, what: str) -> bytes:
        """The body. The engine may be a range's own and hostile: it is not collected without end."""
        content = bytearray()
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > ANSWER_LIMIT_BYTES:
                raise EngineUnavailable(
                    f"{what}: the engine at {self.url} answers more than {ANSWER_LIMIT_BYTES} bytes"
                )
        return bytes(content)

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
        asks_first: bool = False,
        otherwise: type[CyroidError] = TransferFailed,
    ) -> AsyncIterator[Reply]:
        """A request whose answer streams; leaving ends it on the engine's side too, by closing the connection.

        asks_first: the body goes out when the request is not refused (`Expect: 100-continue`). A proxy that refuses it
        reads no body, and the reason would get lost with the connection.
        """
        async with self.call(what):
            pass
        reply = Reply(what, self.url, quiet_seconds)
        try:
            async with reply.watched():
                reply.response = response = await self.docker.session.request(
                    method,
                    f"{self.docker.docker_host}/{self.docker.api_version}/{path}",
                    params=params,
                    headers={"Content-Type": "application/x-tar", **(headers or {})},
                    data=None if body is None else reply.feed(body),
                    expect100=asks_first,
                    read_bufsize=_READ_BUFFER_BYTES,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                )
            if response.status >= 400:
                async with reply.watched():
                    text = (await self._whole(response, what)).decode(errors="replace")
                raise engine_error(response.status, text, what, self.url, otherwise)
            yield reply
        finally:
            if reply.response is not None:
                reply.response.close()
            await reply.end_body()
            if self._connector is not None:
                await self._connector.cut()

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except DockerError as problem:
            if problem.status == 900:
                self._negotiated = False
                raise EngineUnavailable(describe_connection(what, self.url, problem.message)) from problem
            raise engine_error(problem.status, str(problem.message), what, self.url) from problem
        except EngineUnavailable:  # said by a proxy in front of it, or it answers what cannot be read
            self._negotiated = False
            raise
        except (aiohttp.ClientError, ConnectionError) as problem:
            self._negotiated = False
            raise EngineUnavailable(describe_connection(what, self.url, problem)) from problem
        except MALFORMED as problem:
            self._negotiated = False
            raise EngineUnavailable(
                f"{what}: what is at {self.url} does not answer as an engine does ({problem}): see what listens there"
            ) from problem

    async def _negotiate(self) -> None:
        """The newest API version that both sides know (engine API, "Versioning"); asked again after the engine
        was unavailable.
        """
        if self._negotiated:
            return
        async with self.docker.session.get(f"{self.docker.docker_host}/version") as response:
            response.raise_for_status()
            said = decode(await self._whole(response, "version"), _Versions)
        newest, oldest = _version(said.api_version), _version(said.oldest or "1.12")
        chosen = min(newest, NEWEST_API)
        if chosen < OLDEST_API or oldest > chosen:
            raise EngineUnavailable(
                f"the engine at {self.url} ({said.version}) speaks API {said.oldest} to {said.api_version}; "
                f"needed is one of {_text(OLDEST_API)} to {_text(NEWEST_API)}",
                code="engine_too_old" if chosen < OLDEST_API else "engine_too_new",
            )
        self.docker.api_version = f"v{_text(chosen)}"
        self._negotiated = True


class _Versions(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What `GET /version` tells of the versions that an engine speaks."""

    api_version: str
    version: str = ""
    oldest: str = msgspec.field(default="", name="MinAPIVersion")


def image_name(name: str) -> str:
    """`name`, checked to be safe as part of a URL's path; every name that an engine accepts is. Raises BadReference."""
    if not is_image_name(name):
        raise BadReference(f"{name!r} is no image name or id")
    return name


def is_image_name(name: str) -> bool:
    """Whether it is safe as part of a URL's path."""
    return _SAFE_NAME.match(name) is not None


def _connector(url: str) -> UnixConnector | TCPConnector | None:
    # force_close: a connection kept from before the engine's restart would fail the next request.
    if url.startswith("unix://"):
        return UnixConnector(url.removeprefix("unix://"), force_close=True)
    if url.startswith(("tcp://", "http://")):
        return TCPConnector(force_close=True)
    return None


def _version(text: str) -> tuple[int, int]:
    found = _API_VERSION.fullmatch(text)
    if found is None:
        raise msgspec.ValidationError(f"it gives an API version {text[:40]!r}")
    return int(found[1]), int(found[2])


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
