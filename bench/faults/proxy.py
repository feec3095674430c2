"""A TCP proxy between one worker and Redis that breaks one chosen command in one chosen way.

It reads requests (RESP arrays) well enough to name the step of the bus that each one is, and harms the n-th of a step:

    cut_before     the connection breaks before Redis gets the command
    cut_after      Redis does it, the reply is dropped and the connection breaks
    cut_within     half of the reply arrives, then the connection breaks
    late           the reply comes after the client has given up
    slow           the reply comes late, but in time
    silence        no reply ever, and the connection stays open
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from deploy.machine.tcp_server import tcp_server
from events.redis.client import Commands
from events.redis.scripts import NAMES, Script

Kind = Literal["cut_before", "cut_after", "cut_within", "late", "slow", "silence"]
KINDS: tuple[Kind, ...] = ("cut_before", "cut_after", "cut_within", "late", "slow", "silence")
STEPS = ("publish", "take", "wait", "read", "acquire", "renew", "finish", "defer", "dead_letter", "release", "recover")


@dataclass
class Fault:
    """What to do to the `nth` request of `step`.

    For faults of the process that asked, `before` is called instead of handing the request on, and says whether Redis
    is to get it at all (a killed process sends nothing more; what a stopped one sent may arrive much later); `after` is
    called once Redis has done it, before the reply.

    Requests before it is `armed` do not count. With `marker` it is the first reply with these bytes in it that is
    dropped, whatever was asked.
    """

    step: str
    nth: int = 1
    kind: Kind | None = None
    late_seconds: float = 2.5
    slow_seconds: float = 0.4
    before: Callable[[], Awaitable[bool]] | None = None
    after: Callable[[], Awaitable[object]] | None = None
    marker: bytes | None = None
    armed: Callable[[], bool] = lambda: True
    injected: asyncio.Event = field(default_factory=asyncio.Event)
    seen: Counter[str] = field(default_factory=Counter)
    came: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    def strikes(self, step: str) -> bool:
        """Whether it is this request's turn; counts."""
        self.came[step].set()
        if step == self.step and not self.armed():
            return False
        self.seen[step] += 1
        if step != self.step or self.seen[step] != self.nth or self.injected.is_set():
            return False
        self.injected.set()
        return True

    def swallows(self, reply: bytes) -> bool:
        """Whether this reply is the one that never arrives."""
        if self.marker is None or self.marker not in reply or self.injected.is_set():
            return False
        self.injected.set()
        return True


class Proxy:
    """Listens on a port of its own. `upstream` may be changed: connections made later go there."""

    def __init__(self, upstream: tuple[str, int], fault: Fault | None = None) -> None:
        self.upstream = upstream
        self.fault = fault
        self.port = 0
        self._digests = _digests()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        async with tcp_server(self._accept) as self.port:
            yield self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Either side may go away, which is what this is for.
        with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(5):
                up_reader, up_writer = await asyncio.open_connection(*self.upstream)
            try:
                await self._serve(reader, writer, up_reader, up_writer)
                writer.close()
            finally:
                up_writer.transport.abort()

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        pump = asyncio.create_task(_pump(up_reader, writer, self.fault))
        try:
            while True:
                raw, words = await read_request(reader)
                fault = self.fault
                if fault is None or not fault.strikes(self._step(words)):
                    up_writer.write(raw)
                    await up_writer.drain()
                    continue
                arrives = await fault.before() if fault.before else True
                if fault.kind == "cut_before" or not arrives:
                    return
                pump.cancel()
                await asyncio.gather(pump, return_exceptions=True)
                up_writer.write(raw)
                reply = await up_reader.read(1 << 20)
                if fault.after:
                    await fault.after()
                if not await _answer(fault, reply, writer):
                    return
                pump = asyncio.create_task(_pump(up_reader, writer, self.fault))
        finally:
            pump.cancel()

    def _step(self, words: Sequence[bytes]) -> str:
        name = words[0].decode().upper()
        if name == "XREAD":
            return "wait"
        if name not in ("EVALSHA", "EVAL"):
            return name.lower()
        script = self._digests.get(words[1].decode(), "eval")
        if script == "commit":
            return "publish" if words[5] else {b"done": "finish", b"dead": "dead_letter"}[words[12]]
        if script == "defer":
            return "release" if words[12] == b"0" else "defer"
        return script


async def _answer(fault: Fault, reply: bytes, writer: asyncio.StreamWriter) -> bool:
    """Treat the reply as the fault says. Whether the connection goes on."""
    match fault.kind:
        case "cut_after":
            return False
        case "cut_within":
            writer.write(reply[: len(reply) // 2])
            await writer.drain()
            return False
        case "late":
            await asyncio.sleep(fault.late_seconds)
        case "slow":
            await asyncio.sleep(fault.slow_seconds)
        case "silence":
            await asyncio.Event().wait()
    writer.write(reply)
    await writer.drain()
    return True


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None) -> None:
    try:
        while chunk := await reader.read(1 << 16):
            if fault is not None and fault.swallows(chunk):
                break
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    """One request (a RESP array of bulk strings): its bytes and its words."""
    head = await reader.readuntil(b"\r\n")
    parts, words = [head], []
    for _ in range(int(head[1:])):
        size = await reader.readuntil(b"\r\n")
        body = await reader.readexactly(int(size[1:]) + 2)
        parts += [size, body]
        words.append(body[:-2])
    return b"".join(parts), words


def _digests() -> dict[str, str]:
    """Which script a digest is."""
    nobody: Commands = Commands.__new__(Commands)
    return {Script(name, nobody, str).digest: name for name in NAMES}
