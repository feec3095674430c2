"""A gateway on a port of its own, over a bus in memory, with one range that may enter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from events.bus import Post
from events.envelope import Envelope
from events.gateway import GatewayBus
from events.gateway.frames import frame, read_frame
from events.gateway.protocol import ANSWER_BYTES, Answer, Hello
from events.lease import Bus
from events.memory.bus import MemoryBus
from events.messages import ImageReady, Message, PullRequested, RangeLimited, TransferProgress
from events.streams import Streams
from services.commands.range_claims import claiming
from services.core.ranges.limits import RangeLimits
from services.range_gateway import RangeGateway
from services.range_gateway.secrets import RangeSecrets, digest

RANGE, SECRET = "r1", "s3cret"
IMAGE_ID = "sha256:" + "0" * 64


@dataclass
class Site:
    """`bus` is the services' side; `port` is where the gateway listens."""

    bus: Bus
    port: int
    secrets: Path
    streams: Streams = field(default_factory=Streams)
    raw: list[RawConnection] = field(default_factory=list)

    def url(self, range_id: str = RANGE, secret: str = SECRET) -> str:
        return f"gateway://{range_id}:{secret}@127.0.0.1:{self.port}"

    def agent(self, range_id: str = RANGE, secret: str = SECRET) -> _Opened:
        return _Opened(self.url(range_id, secret), self.streams)

    @property
    def inbox(self) -> str:
        return self.streams.inbox(RANGE)

    @property
    def outbox(self) -> str:
        return self.streams.outbox(RANGE)

    async def ask(self, transfer_id: str = "t1") -> Envelope:
        """The deployer asks the range for a pull."""
        request = PullRequested(transfer_id=transfer_id, reference="web:1", image_id=IMAGE_ID)
        envelope = Envelope(message=request, source="deployer@h", subject="web:1")
        await self.bus.publish(self.inbox, envelope)
        return envelope

    async def said(self, stream: str) -> list[Message]:
        found = self.bus.tail([stream], after="0", follow=False)
        return [entry.envelope.message async for entry in found if entry.envelope]

    async def limited(self) -> list[RangeLimited]:
        return [one for one in await self.said(self.streams.deployments) if isinstance(one, RangeLimited)]


class _Opened:
    """`async with site.agent() as bus`."""

    def __init__(self, url: str, streams: Streams) -> None:
        self._opened = GatewayBus.open(url, streams=streams)

    async def __aenter__(self) -> GatewayBus:
        return await self._opened.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self._opened.__aexit__(None, None, None)


def ready(source: str = f"agent@{RANGE}", transfer_id: str = "t1") -> Envelope:
    message = ImageReady(transfer_id=transfer_id, image_id=IMAGE_ID, how="pulled")
    return Envelope(message=message, source=source, subject="web:1")


def progress(streams: Streams, done_bytes: int = 1) -> Post:
    message = TransferProgress(
        transfer_id="t1", reference="web:1", kind="pull", phase="downloading", range_id=RANGE, done_bytes=done_bytes
    )
    return Post(
        streams.range_progress(RANGE), Envelope(message=message, source="agent@w", subject="web:1"), keep=10_000
    )


@asynccontextmanager
async def open_site(
    folder: Path,
    *,
    bus: Bus | None = None,
    streams: Streams | None = None,
    limits: RangeLimits | None = None,
    host: str = "",
) -> AsyncIterator[Site]:
    """The gateway runs until the block ends; with a `host` it claims the ranges for that."""
    for name in (RANGE, "r2"):
        (folder / name).write_text(digest(SECRET))
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    inner = bus or MemoryBus()
    gateway = RangeGateway(
        bus=inner,
        streams=streams or Streams(),
        secrets=RangeSecrets(folder),
        listen="127.0.0.1:0",
        source="range-gateway@h",
        limits=limits,
        host=host,
        claim=claiming(inner, (streams or Streams()).prefix, host=host, clock=lambda: datetime.now(UTC)),
        started=port.set_result,
    )
    running = asyncio.create_task(gateway.run())
    try:
        first: set[asyncio.Future[Any]] = {running, port}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        site = Site(inner, port.result(), folder, streams or Streams())
        yield site
        for raw in site.raw:
            await raw.close()
        assert not running.done(), "the gateway ended by itself"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@dataclass
class RawConnection:
    """Frames by hand, as malware in a range would send them."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, site: Site, *, hello: bool = True) -> RawConnection:
        raw = cls(*await asyncio.open_connection("127.0.0.1", site.port))
        site.raw.append(raw)
        if hello:
            await raw.send(msgspec.msgpack.encode(Hello(RANGE, SECRET)))
            await raw.answer()
        return raw

    async def send(self, payload: bytes) -> None:
        self.writer.write(frame(payload))
        await self.writer.drain()

    async def answer(self) -> Answer:
        answer: Answer = msgspec.msgpack.decode(await read_frame(self.reader, limit_bytes=ANSWER_BYTES), type=Answer)
        return answer

    async def ended(self) -> bool:
        """Whether the gateway ends the connection, within the test's own patience."""
        async with asyncio.timeout(60):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionError:
                return True
        return True

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so, for at most a minute."""
    async with asyncio.timeout(60):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)
