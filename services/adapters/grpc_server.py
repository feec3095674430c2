"""gRPC server for one connection: unary methods over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md), on h2.

BuildKit calls back over a connection that its client opened, so the server here has no socket of its own to listen on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError

from services.core.builds import protobuf

INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED = 3, 5, 12
_READ_BYTES = 64 * 1024
#: A call of a secret's name or of a health check is far smaller.
_REQUEST_LIMIT_BYTES = 64 * 1024
_PREFIX_BYTES = 5


class Method(Protocol):
    """Answers one request message.

    Raises CallFailed for a failed call, ValueError for a message that cannot be decoded.
    """

    def __call__(self, request: bytes, /) -> bytes: ...


class CallFailed(Exception):
    """A call's error: `status` is one of gRPC's codes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class _Call:
    path: str
    request: bytearray = field(default_factory=bytearray)
    answer: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)


class GrpcServer:
    """`serve` answers calls of `methods`, by their path, until the other side closes."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods
        self._http = H2Connection(H2Configuration(client_side=False))
        self._calls: dict[int, _Call] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer calls until the connection is closed by either side; the caller closes `writer`."""
        self._http.initiate_connection()
        try:
            while True:
                writer.write(self._http.data_to_send())
                await writer.drain()
                content = await reader.read(_READ_BYTES)
                if not content:
                    return
                for event in self._http.receive_data(content):
                    self._take(event)
        except (ConnectionError, ProtocolError):
            return

    def _take(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            path = dict(event.headers).get(b":path", b"")
            self._calls[event.stream_id] = _Call(path.decode(errors="replace"))
        elif isinstance(event, DataReceived):
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            call = self._calls.get(event.stream_id)
            if call is not None and len(call.request) <= _REQUEST_LIMIT_BYTES:
                call.request += event.data
        elif isinstance(event, StreamEnded):
            self._answer(event.stream_id)
        elif isinstance(event, StreamReset):
            self._calls.pop(event.stream_id or 0, None)
        elif isinstance(event, WindowUpdated):
            for stream_id in list(self._calls):
                self._send(stream_id)

    def _answer(self, stream_id: int) -> None:
        call = self._calls[stream_id]
        try:
            method = self._methods.get(call.path)
            if method is None or len(call.request) > _REQUEST_LIMIT_BYTES:
                raise CallFailed(UNIMPLEMENTED, f"no method {call.path}")
            answer = method(bytes(call.request[_PREFIX_BYTES:]))
        except (CallFailed, ValueError) as failed:
            status = failed.status if isinstance(failed, CallFailed) else INVALID_ARGUMENT
            call.trailers = [("grpc-status", str(status)), ("grpc-message", quote(str(failed)))]
        else:
            call.answer = b"\0" + len(answer).to_bytes(4, "big") + answer
            call.trailers = [("grpc-status", "0")]
        self._http.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        self._send(stream_id)

    def _send(self, stream_id: int) -> None:
        """Send as much of an answer as the other side takes now, and the end of the call with the last part."""
        call = self._calls[stream_id]
        if not call.trailers:
            return
        while call.answer:
            room = min(self._http.local_flow_control_window(stream_id), self._http.max_outbound_frame_size)
            if room <= 0:
                return
            self._http.send_data(stream_id, call.answer[:room])
            call.answer = call.answer[room:]
        del self._calls[stream_id]
        self._http.send_headers(stream_id, call.trailers, end_stream=True)


def serving(request: bytes) -> bytes:
    """The health method `grpc.health.v1.Health/Check`: always serving."""
    return protobuf.message((1, 1))
