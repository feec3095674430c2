"""dind/grpc_client.py: calls to a server of another make, and messages that another library reads and writes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import ModuleType

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream
from hypothesis import given
from hypothesis import strategies as st

from services.adapters import containerd_messages as m

DIND = Path(__file__).parents[3] / "dind"
STATUSES = {b"missing": Status.NOT_FOUND, b"there": Status.ALREADY_EXISTS, b"later": Status.UNAUTHENTICATED}


@pytest.fixture
def grpc_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(DIND))
    import grpc_client

    yield grpc_client
    del sys.modules["grpc_client"]


class Bytes(CodecBase):
    """Messages as they are."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: type[bytes]) -> bytes:
        return message

    def decode(self, data: bytes, message_type: type[bytes]) -> bytes:
        return data


class Echo:
    """Answers with what was asked and who asked; some questions have another status."""

    async def ask(self, stream: Stream[bytes, bytes]) -> None:
        asked = await stream.recv_message() or b""
        if asked in STATUSES:
            raise GRPCError(STATUSES[asked], "a reason: ✗")
        assert stream.metadata is not None
        await stream.send_message(asked + str(stream.metadata["caller"]).encode())

    def __mapping__(self) -> dict[str, Handler]:
        return {"/test.Echo/Ask": Handler(self.ask, Cardinality.UNARY_UNARY, bytes, bytes)}


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[None]:
    server = Server([Echo()], codec=Bytes())
    await server.start(path=str(path))
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


async def test_calls_over_one_connection_are_answered(grpc_client: ModuleType, tmp_path: Path) -> None:
    """With content and status, also of what is larger than all windows together."""
    asked = [b"", b"hello", b"missing", bytes(300_000), b"there", b"later", *[b"x" * 9000] * 20]

    def call_all() -> list[tuple[int, bytes]]:
        with closing(grpc_client.GrpcClient(tmp_path / "s", seconds=20)) as client:
            return [client.call("/test.Echo/Ask", one, {"caller": "init" * 50}) for one in asked]

    async with serving(tmp_path / "s"):
        answers = await asyncio.to_thread(call_all)
    wanted = [(STATUSES[one].value, b"") if one in STATUSES else (0, one + b"init" * 50) for one in asked]
    assert answers == wanted


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\7\0\0\0\0\0" + b"\0\0\x08\7\0\0\0\0\0" + bytes(8),
        b"\0\0\x01\x01\x05\0\0\0\x01\x88",
        b"\0\0\x03\x01\x05\0\0\0\x01\0\x7f\xff",
        b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x01",
    ],
    ids=["nothing", "http1", "goaway", "no status", "cut off", "reset"],
)
async def test_what_is_no_grpc_server_is_an_error(grpc_client: ModuleType, tmp_path: Path, said: bytes) -> None:
    """At once, not after a wait."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(said)
        writer.close()

    def call() -> None:
        with closing(grpc_client.GrpcClient(tmp_path / "s", seconds=20)) as client:
            client.call("/test.Echo/Ask", b"", {})

    async with await asyncio.start_unix_server(answer, tmp_path / "s"):
        with pytest.raises(OSError, match=r"server|HTTP/2|pipe|reset"):
            await asyncio.to_thread(call)


def test_messages_are_what_another_library_writes(grpc_client: ModuleType) -> None:
    """Numbers, texts, bytes and labels; what is empty is left out."""
    label = grpc_client.encode((1, "key"), (2, "value"))
    fields = ((1, 2), (2, "ref"), (3, 5_000_000_000), (4, "sha256:ab"), (5, 0), (6, b"\0\xff" * 300), (7, label))
    request = m.WriteRequest(2, "ref", 5_000_000_000, "sha256:ab", 0, b"\0\xff" * 300, m.labels({"key": "value"}))
    assert m.WriteRequest.loads(grpc_client.encode(*fields)) == request


def test_texts_of_another_librarys_message_are_found(grpc_client: ModuleType) -> None:
    """Each in its field, other fields passed over."""
    answer = bytes(m.MountsAnswer([m.Mount("bind", "/a/fs", ["rw", "upperdir=/b"]), m.Mount("overlay")]))
    first, second = grpc_client.texts(answer, 1)
    assert grpc_client.texts(first, 2) == [b"/a/fs"]
    assert grpc_client.texts(first, 4) == [b"rw", b"upperdir=/b"]
    assert grpc_client.texts(second, 3) == []


@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_value_error(content: bytes) -> None:
    """So containerd can say what it likes."""
    sys.path.insert(0, str(DIND))
    try:
        import grpc_client
    finally:
        sys.path.remove(str(DIND))
    try:
        found = grpc_client.texts(content, 1)
    except ValueError:
        return
    assert all(one in content for one in found)
