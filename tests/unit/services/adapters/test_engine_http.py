"""services.adapters.engine_http: connections to an engine that does not do its part."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from services.adapters.engine import DockerEngine
from services.adapters.engine_http import EngineConnection
from services.adapters.engine_streams import Reply
from services.errors import EngineUnavailable, TransferFailed

VERSION = b'{"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10"}'
#: More than what a socket holds, by less than what a transport keeps: some of it is still to be written.
CHUNK = bytes(int(Path("/proc/sys/net/core/wmem_default").read_text()) + 30_000)


class DeafEngine:
    """Reads nothing of a body until it is told to, having begun its answer or not. `received` is all that came then."""

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers
        self.listening, self.received = asyncio.Event(), asyncio.Queue[int]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if b"/version" in asked:
            length = str(len(VERSION)).encode()
            said = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + length + b"\r\n\r\n"
            writer.write(said + VERSION)
        else:
            if self._answers:
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await self.listening.wait()
            received = 0
            with contextlib.suppress(ConnectionError):
                while chunk := await reader.read(1 << 16):
                    received += len(chunk)
            self.received.put_nowait(received)
        writer.close()


async def _read_to_the_end(stream: AbstractAsyncContextManager[Reply]) -> None:
    async with stream as reply:
        while await reply.next_bytes():
            pass


@pytest.mark.parametrize("answers", [True, False])
async def test_a_body_that_breaks_ends_the_connection_though_the_engine_reads_nothing(
    tmp_path: Path, answers: bool
) -> None:
    """Closing alone would wait until the engine has taken what is still to be written, which it may never do."""

    async def body() -> AsyncIterator[bytes]:
        yield CHUNK
        raise TransferFailed("the archive broke off")

    path, deaf = tmp_path / "engine.sock", DeafEngine(answers=answers)
    server = await asyncio.start_unix_server(deaf.serve, path, limit=1 << 12)
    async with server, EngineConnection.open(f"unix://{path}", answer_seconds=5) as engine:
        with pytest.raises(TransferFailed):
            await _read_to_the_end(engine.stream("load", "POST", "images/load", quiet_seconds=1, body=body()))
        deaf.listening.set()
        async with asyncio.timeout(5):
            assert await deaf.received.get() < len(CHUNK)


async def test_a_missing_socket_is_told_by_the_systems_reason(tmp_path: Path) -> None:
    """Without what a library adds to it."""
    async with EngineConnection.open(f"unix://{tmp_path}/none.sock", answer_seconds=5.0) as connection:
        with pytest.raises(EngineUnavailable) as told:
            async with connection.call("ping"):
                raise AssertionError("nothing answers")
    assert f"unix://{tmp_path}/none.sock (no such file or directory)" in str(told.value)


async def _pinged(path: Path, content: bytes) -> list[bytes]:
    """The paths that a ping asks for, of what answers `content` to `_ping`."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
        said = VERSION if asked[-1].endswith(b"/version") else content
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server, DockerEngine.open(f"unix://{path}", answer_seconds=5) as engine:
        await engine.ping()
        await engine.ping()
    return asked


async def test_a_ping_costs_an_engine_no_process(tmp_path: Path) -> None:
    """`version` is asked for once, to agree on the API: an engine starts two programs to answer it."""
    assert await _pinged(tmp_path / "engine.sock", b"OK") == [b"/version", b"/v1.41/_ping", b"/v1.41/_ping"]


async def test_a_ping_that_is_answered_with_anything_else_is_not_answered_by_an_engine(tmp_path: Path) -> None:
    """The page of a proxy, say, whose status is 200."""
    with pytest.raises(EngineUnavailable, match="does not answer as an engine does"):
        await _pinged(tmp_path / "engine.sock", b"<html>")
