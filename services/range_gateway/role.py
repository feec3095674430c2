"""The role `range-gateway`: what a range's agent connects to instead of Redis.

Consumes no stream itself; leases entries of each range's inbox for that range's agent, and adds the agent's own
messages to the range's outbox and progress stream (`events.gateway.protocol`). Emits `range.limited` about ranges that
ask for more than they may (`services.core.ranges.limits`).

One process serves all ranges. Whatever a range does is bounded before Redis hears of it: connections, time, sizes,
rates, budgets, the memory that its outbox takes. What a range asks for is only ever done on its own streams.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec

from events.bus import BusError
from events.gateway.frames import FrameTooLarge, frame, read_frame
from events.gateway.protocol import VERSION, Hello, Welcome
from events.lease import Bus
from events.malformed import MALFORMED
from events.streams import Streams
from events.subscription import Subscription
from events.task_group import TaskGroup
from services.core.ranges.limits import Limit, RangeAccount, RangeLimits
from services.errors import BadInput
from services.range_gateway.admission import HELLO_BYTES, HELLO_SECONDS, Admission, network_of
from services.range_gateway.inbox_watch import InboxWatch
from services.range_gateway.operations import Operations
from services.range_gateway.outbox_quota import OutboxQuota
from services.range_gateway.reports import Reports
from services.range_gateway.secrets import RangeSecrets
from services.range_gateway.session import Session
from services.runtime.telemetry import get_logger

REPORT_SECONDS = 1.0
#: Whoever is not let in keeps its place meanwhile, of which an address has few.
DENIED_SECONDS = 1.0
_ENCODE = msgspec.msgpack.Encoder().encode
_HELLO: msgspec.msgpack.Decoder[Hello] = msgspec.msgpack.Decoder(Hello)

log = get_logger(role="range-gateway")


class RangeGateway:
    """The role. `started` is called with the port that it listens on (with port 0 the kernel chooses one).

    `host` is where its ranges are, empty where the installation has one host. `claim` claims a range's id for it, and
    raises BadInput where another host has that range.
    """

    name = "range-gateway"

    def __init__(
        self,
        *,
        bus: Bus,
        streams: Streams,
        secrets: RangeSecrets,
        listen: str,
        source: str,
        limits: RangeLimits | None = None,
        host: str = "",
        claim: Callable[[str], Awaitable[object]] | None = None,
        started: Callable[[int], None] = lambda port: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._secrets = secrets
        self._listen = listen
        self._limits = limits or RangeLimits()
        self._host, self._claim = host, claim
        self._started = started
        self._clock = clock
        self._accounts: dict[str, RangeAccount] = {}
        self._admission = Admission()
        self._news = InboxWatch(bus, streams)
        self._quota = OutboxQuota(bus, streams)
        self._reports = Reports(bus, streams, source=source, clock=clock)

    def subscriptions(self) -> Sequence[Subscription]:
        return ()

    async def run(self) -> None:
        """Serve until cancelled."""
        host, _, port = self._listen.rpartition(":")
        async with TaskGroup() as tasks:
            tasks.create_task(self._news.run())
            tasks.create_task(self._report())
            server = await asyncio.start_server(
                lambda reader, writer: self._accept(tasks, reader, writer), host.strip("[]"), int(port), backlog=512
            )
            async with server:
                self._started(server.sockets[0].getsockname()[1])
                log.info("listening", address=self._listen)
                await server.serve_forever()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            await self._reports.write()

    def _accept(self, tasks: TaskGroup, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self._guarded(lambda: self._serve(reader, writer))
        try:
            task = tasks.create_task(connection)
        except RuntimeError:  # the gateway ends
            connection.close()
            writer.transport.abort()
            return
        # Not in the task itself: one that is cancelled before its first step closes nothing.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _guarded(self, serve: Callable[[], Awaitable[None]]) -> None:
        try:
            await serve()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it left, or never said what it wanted
        except Exception as problem:
            # No connection of a range ends the gateway of all.
            log.error("a connection failed", exc_info=problem)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._admission.unknown(network_of(writer)) as place:
            hello = await self._hello(reader) if place else None
            if hello is None:
                return
            welcome = self._welcome(hello)
            if welcome.error is None:
                welcome = await self._claimed(hello.range_id)
            if welcome.error is not None:
                await asyncio.sleep(DENIED_SECONDS)
            async with asyncio.timeout(HELLO_SECONDS):
                writer.write(frame(_ENCODE(welcome)))
                await writer.drain()
                if welcome.error is not None:
                    writer.write_eof()
                    await reader.read(HELLO_BYTES)  # so that the answer is read before the connection is reset
                    return
        await self._session(hello.range_id, reader, writer)

    async def _hello(self, reader: asyncio.StreamReader) -> Hello | None:
        with suppress(FrameTooLarge, *MALFORMED):
            async with asyncio.timeout(HELLO_SECONDS):
                return _HELLO.decode(await read_frame(reader, limit_bytes=HELLO_BYTES))
        return None

    def _welcome(self, hello: Hello) -> Welcome:
        if not self._secrets.knows(hello.range_id, hello.secret):
            return Welcome("denied", f"this is not the secret of the range {hello.range_id}")
        if hello.version != VERSION:
            return Welcome("away", f"this gateway speaks version {VERSION} of its protocol, not {hello.version}")
        account, now = self._account(hello.range_id), self._clock()
        account.request(HELLO_BYTES, now)
        left = account.closed_until - now
        if left > 0:
            return Welcome("away", f"the range asked for more than it may: again in {left:.0f} s")
        return Welcome()

    async def _claimed(self, range_id: str) -> Welcome:
        """One range of each id in the installation: another host's is not let in."""
        if self._claim is None:
            return Welcome()
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                await self._claim(range_id)
        except BadInput as problem:
            log.warning("a range is not let in", range=range_id, why=str(problem))
            return Welcome("denied", str(problem))
        except (BusError, TimeoutError):
            return Welcome("away", "Redis did not answer in time")
        return Welcome()

    def _account(self, range_id: str) -> RangeAccount:
        return self._accounts.setdefault(range_id, RangeAccount(self._limits))

    async def _session(self, range_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        account = self._account(range_id)

        def met(limit: Limit, /, *, cut: bool = False) -> None:
            self._reports.met(range_id, limit, cut=cut)
            if cut:
                self._admission.end(range_id)

        operations = Operations(
            self._bus,
            streams=self._streams,
            range_id=range_id,
            account=account,
            quota=self._quota,
            met=met,
            clock=self._clock,
            host=self._host,
        )
        session = Session(reader, writer, operations=operations, account=account, met=met, clock=self._clock)
        with self._admission.known(range_id, session), self._news.listening(range_id, session.news):
            await session.run()
