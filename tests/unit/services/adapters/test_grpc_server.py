"""gRPC calls over one connection, with h2 as the client."""

import asyncio

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, TrailersReceived

from services.adapters.grpc_server import NOT_FOUND, CallFailed, GrpcServer


def echo(request: bytes) -> bytes:
    """Answers a thousand times what was asked; `missing` is not there, `broken` is no request."""
    if request == b"missing":
        raise CallFailed(NOT_FOUND, "no such secret")
    if request == b"broken":
        raise ValueError("a varint without an end")
    return request * 1000


async def call(path: str, request: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The answer's message and its trailers, of a server of `/echo`."""
    client = H2Connection(H2Configuration(client_side=True))
    content, trailers, done = b"", dict[bytes, bytes](), asyncio.Event()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await GrpcServer({"/echo": echo}).serve(reader, writer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(served, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        client.initiate_connection()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
        client.send_headers(1, headers)
        client.send_data(1, b"\0" + len(request).to_bytes(4, "big") + request, end_stream=True)
        writer.write(client.data_to_send())
        async with asyncio.timeout(20):
            while not done.is_set():
                for event in client.receive_data(await reader.read(65536)):
                    if isinstance(event, DataReceived):
                        content += event.data
                        client.acknowledge_received_data(event.flow_controlled_length, 1)
                    elif isinstance(event, ResponseReceived | TrailersReceived):
                        trailers |= dict(event.headers)
                    elif isinstance(event, StreamEnded):
                        done.set()
                writer.write(client.data_to_send())
        writer.close()
        await writer.wait_closed()
    return content[5:], trailers


async def test_an_answer_larger_than_the_window_comes_whole() -> None:
    """The client gives room for 64 KiB at a time."""
    request = bytes(range(256)) * 2
    content, trailers = await call("/echo", request)
    assert content == request * 1000
    assert trailers[b"grpc-status"] == b"0"


async def test_errors_have_their_status() -> None:
    """What is not there, what is no request, and a method that nobody serves."""
    for path, request, status in (("/echo", b"missing", b"5"), ("/echo", b"broken", b"3"), ("/other", b"", b"12")):
        content, trailers = await call(path, request)
        assert (content, trailers[b"grpc-status"]) == (b"", status)
