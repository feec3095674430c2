"""Uploads of images by agents of ranges: who is let in, and how much a hostile one can do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from events.envelope import Envelope
from events.memory.bus import MemoryBus
from events.messages import SaveRequested
from services.errors import NotFound, Stalled, TransferFailed
from services.registry_pusher.range_uploads import RangeUploads
from tests.laboratory import free_port
from tests.unit.services.twins import STREAMS

NAME, IMAGE = "docker.io/library/web:1", "sha256:" + "1" * 64


class Inbox(MemoryBus):
    """A bus that hands out what a range is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: asyncio.Queue[SaveRequested] = asyncio.Queue()

    async def publish(self, stream: str, *envelopes: Envelope) -> None:
        assert stream == STREAMS.inbox("r1")
        for envelope in envelopes:
            assert isinstance(envelope.message, SaveRequested)
            self.asked.put_nowait(envelope.message)


@dataclass
class Upload:
    """The host's side, which reads an archive, and requests as a range may send them."""

    begin_seconds: float = 30.0
    stall_seconds: float = 30.0
    bus: Inbox = field(default_factory=Inbox)
    got: list[bytes] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    async def read(self, limit_bytes: int | None = None) -> bytes:
        uploads = RangeUploads(
            bus=self.bus,
            streams=STREAMS,
            source="test",
            listen=f"127.0.0.1:{self.port}",
            url=f"http://127.0.0.1:{self.port}",
            begin_seconds=self.begin_seconds,
            stall_seconds=self.stall_seconds,
        )
        async with uploads.archive("r1", NAME, IMAGE) as chunks:
            async for chunk in chunks:
                self.got.append(chunk)
                if limit_bytes is not None and sum(map(len, self.got)) > limit_bytes:
                    break
        return b"".join(self.got)

    async def send(self, url: str, token: str, *, method: str = "PUT", **more: Any) -> int | None:
        """The status; None where the connection was ended without an answer."""
        headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.request(method, url, headers=headers, **more) as response,
            ):
                return response.status
        except aiohttp.ClientError:
            return None


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(100_000)


async def _silent() -> AsyncIterator[bytes]:
    yield b"a"
    await asyncio.Event().wait()


async def test_an_archive_is_taken_once_from_who_has_the_token() -> None:
    """Others learn nothing, and the same token opens nothing again; nobody listens afterwards."""
    upload = Upload()
    reading = asyncio.create_task(upload.read())
    asked = await upload.bus.asked.get()
    assert (asked.reference, asked.image_id) == (NAME, IMAGE)
    assert await upload.send(asked.url, "wrong", data=b"evil") == 404
    assert await upload.send(asked.url, "\udcff", data=b"evil") == 404
    assert await upload.send(asked.url + "x", asked.token, data=b"evil") == 404
    assert await upload.send(asked.url, asked.token, method="GET") == 405
    first = asyncio.create_task(upload.send(asked.url, asked.token, data=b"archive"))
    assert await first == 204
    assert await reading == b"archive"
    assert await upload.send(asked.url, asked.token, data=b"evil") is None


async def test_a_second_archive_is_refused_while_the_first_is_read() -> None:
    """The token is of one use."""
    upload = Upload()
    reading = asyncio.create_task(upload.read())
    asked = await upload.bus.asked.get()
    first = asyncio.create_task(upload.send(asked.url, asked.token, data=_silent()))
    async with asyncio.timeout(30):
        while not upload.got:  # noqa: ASYNC110  what the reader has is all there is to see
            await asyncio.sleep(0.01)
    assert await upload.send(asked.url, asked.token, data=b"evil") == 404
    for one in (reading, first):
        one.cancel()
    await asyncio.wait((reading, first))
    assert upload.got == [b"a"]


async def test_a_range_without_the_image_says_so() -> None:
    """Nobody waits for it then."""
    upload = Upload()
    reading = asyncio.create_task(upload.read())
    asked = await upload.bus.asked.get()
    assert await upload.send(asked.url, asked.token, method="DELETE") == 204
    with pytest.raises(NotFound):
        await reading


async def test_nobody_waits_for_ever_for_a_range() -> None:
    """Neither for one that never begins, nor for one that stops."""
    with pytest.raises(TransferFailed, match="did not begin"):
        await Upload(begin_seconds=0.05).read()
    upload = Upload(stall_seconds=0.2)
    reading = asyncio.create_task(upload.read())
    asked = await upload.bus.asked.get()
    assert await upload.send(asked.url, asked.token, data=_silent()) is None
    with pytest.raises(Stalled):
        await reading


async def test_an_upload_ends_with_whoever_reads_it() -> None:
    """One that never ends is cut off, and not read on."""
    upload = Upload()
    reading = asyncio.create_task(upload.read(limit_bytes=300_000))
    asked = await upload.bus.asked.get()
    async with asyncio.timeout(60):
        assert await upload.send(asked.url, asked.token, data=_endless()) is None
    assert len(await reading) < 3_000_000


async def test_an_upload_that_breaks_off_is_none() -> None:
    """And what says that it is compressed is not decompressed here."""
    upload = Upload()
    reading = asyncio.create_task(upload.read())
    asked = await upload.bus.asked.get()
    sending = asyncio.create_task(upload.send(asked.url, asked.token, data=_silent(), headers={"Content-Length": "9"}))
    async with asyncio.timeout(30):
        while not upload.got:  # noqa: ASYNC110  what the reader has is all there is to see
            await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(TransferFailed, match="broke off"):
        await reading
    upload = Upload()
    reading = asyncio.create_task(upload.read())
    asked = await upload.bus.asked.get()
    raw = {"Content-Encoding": "gzip"}
    assert await upload.send(asked.url, asked.token, data=b"not gzip", headers=raw, skip_auto_headers=()) == 204
    assert await reading == b"not gzip"
