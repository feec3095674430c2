"""Connection of an agent to its gateway: opened when needed, reopened after it broke, shared by all calls.

Everything that is sent here may be sent twice (`events.lease.Bus`), so a call whose connection broke is sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

import msgspec

from events.bus import BusDenied, BusError, BusRefused, BusUnavailable, LeaseLost, RecordConflict
from events.gateway.frames import FrameTooLarge, frame, read_frame
from events.gateway.protocol import (
    ANSWER_BYTES,
    Answer,
    Call,
    ErrorCode,
    Hello,
    InboxChanged,
    Reply,
    Request,
    Welcome,
)
from events.malformed import MALFORMED

SCHEME = "gateway"
DEFAULT_PORT = 7071
ATTEMPTS = 3
#: After a connection that could not be made, the next is tried so much later.
PAUSE_SECONDS = 0.2
_ENCODE = msgspec.msgpack.Encoder().encode
_ANSWER: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_ERRORS: dict[ErrorCode, type[BusError]] = {
    "away": BusUnavailable,
    "denied": BusDenied,
    "refused": BusRefused,
    "lost": LeaseLost,
    "conflict": RecordConflict,
}


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """The gateway's host and port, and the range's name and secret."""

    host: str
    port: int
    range_id: str
    secret: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """`gateway://RANGE:SECRET@HOST[:PORT]`. Raises BusRefused."""
        form = f"the gateway's address is not of the form {SCHEME}://RANGE:SECRET@HOST:PORT"
        try:
            parts = urlsplit(url.strip())
            port = parts.port or DEFAULT_PORT
        except ValueError:  # its text may hold a piece of the secret
            raise BusRefused(form) from None
        if parts.scheme != SCHEME or not parts.hostname or not parts.username or not parts.password:
            raise BusRefused(form)
        return cls(parts.hostname, port, unquote(parts.username), unquote(parts.password))


class _Connection:
    """One TCP connection after its Hello, with the calls that wait for an answer on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, news: Callable[[], None]) -> None:
        self._reader = reader
        self._writer = writer
        self._news = news
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._last = 0
        self.broken: str | None = None
        self._listening = asyncio.create_task(self._listen())

    async def call(self, request: Request) -> Reply:
        """Raises ConnectionError when the connection breaks before the answer is there."""
        self._last += 1
        number = self._last
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            if self.broken is not None:
                raise ConnectionError(self.broken)
            self._writer.write(frame(_ENCODE(Call(number, request))))
            await self._writer.drain()
            return await answer
        finally:
            self._waiting.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen: where the request could not be sent, that is what the caller hears

    async def _listen(self) -> None:
        why = "the gateway ended the connection"
        try:
            while True:
                answer = _ANSWER.decode(await read_frame(self._reader, limit_bytes=ANSWER_BYTES))
                if isinstance(answer, InboxChanged):
                    self._news()
                elif isinstance(answer, Reply):
                    waiting = self._waiting.get(answer.number)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(answer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        except (*MALFORMED, FrameTooLarge) as problem:
            why = f"the gateway's answer cannot be read: {problem}"
        finally:
            self._break(why)

    def _break(self, why: str) -> None:
        if self.broken is None:
            self.broken = why
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError(self.broken))
        self._writer.close()

    async def close(self) -> None:
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)


class Link:
    """Calls to the gateway. `news` is called when the inbox may have a new entry, and after each new connection."""

    def __init__(self, address: GatewayAddress, *, timeout_seconds: float, news: Callable[[], None]) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._news = news
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._not_before = float("-inf")
        self._why = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def call(self, request: Request) -> msgspec.Raw:
        """Send one request and return the value of its reply.

        Raises BusUnavailable, BusDenied, BusRefused, LeaseLost, RecordConflict.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    reply = await (await self._connected()).call(request)
            except (OSError, TimeoutError) as problem:
                if attempt == ATTEMPTS:
                    raise BusUnavailable(f"{self._where} is unavailable: {str(problem) or 'no answer'}") from problem
            else:
                if reply.error is not None:
                    raise _ERRORS[reply.error](reply.message)
                return reply.value
            await asyncio.sleep(0.02 * 4**attempt)
        raise BusUnavailable("no attempt was made")

    @property
    def _where(self) -> str:
        return f"the gateway at {self._address.host}:{self._address.port}"

    async def _connected(self) -> _Connection:
        async with self._connecting:
            connection = self._connection
            if connection is not None and connection.broken is None:
                return connection
            clock = asyncio.get_running_loop().time
            if clock() < self._not_before:
                raise BusUnavailable(f"{self._where} is unavailable: {self._why}")
            try:
                self._connection = await self._connect()
            except (BusError, OSError, TimeoutError) as problem:
                self._not_before, self._why = clock() + PAUSE_SECONDS, str(problem) or "no answer"
                raise
            if connection is not None:
                await connection.close()
            self._news()
            return self._connection

    async def _connect(self) -> _Connection:
        reader, writer = await asyncio.open_connection(self._address.host, self._address.port)
        try:
            writer.write(frame(_ENCODE(Hello(self._address.range_id, self._address.secret))))
            await writer.drain()
            welcome = _ANSWER.decode(await read_frame(reader, limit_bytes=ANSWER_BYTES))
        except (*MALFORMED, FrameTooLarge) as problem:
            writer.close()
            raise BusUnavailable(f"{self._where} speaks another protocol: {problem}") from problem
        except asyncio.IncompleteReadError as problem:
            writer.close()
            raise ConnectionError("it ended the connection") from problem
        except BaseException:
            writer.close()
            raise
        if not isinstance(welcome, Welcome) or welcome.error is not None:
            writer.close()
            error = welcome.error if isinstance(welcome, Welcome) else None
            raise _ERRORS[error or "away"](welcome.message if isinstance(welcome, Welcome) else "no welcome")
        return _Connection(reader, writer, self._news)
