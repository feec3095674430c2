"""Session: one connection of one range after its authentication; requests in, answers out, at the range's pace.

The next request is read when the range's account allows it, so that a range that is too fast waits in its own socket
and nowhere here. What cannot be decoded ends the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from events.bus import BusDenied, BusError, BusUnavailable, LeaseLost, RecordConflict
from events.gateway.frames import FrameTooLarge, frame, read_frame
from events.gateway.protocol import LIST_FRAME_BYTES, Call, ErrorCode, InboxChanged, Reply
from events.malformed import MALFORMED
from events.task_group import TaskGroup
from services.core.ranges.limits import Pace, RangeAccount
from services.range_gateway.operations import OnLimit, Operations

#: An agent's heart beats every few seconds over this connection.
IDLE_SECONDS = 120.0
#: A frame that has begun must be there whole, and an answer taken, within this.
FRAME_SECONDS = 20.0
#: So many requests of one connection are carried out at a time.
SIDE_BY_SIDE = 8
_UNREAD_BYTES = 256 * 1024

_ENCODE = msgspec.msgpack.Encoder().encode
_CALL: msgspec.msgpack.Decoder[Call] = msgspec.msgpack.Decoder(Call)
_NEWS = frame(_ENCODE(InboxChanged()))


class Session:
    """One session. `end` may be called from anywhere; `run` returns then."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        operations: Operations,
        account: RangeAccount,
        met: OnLimit,
        clock: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._operations = operations
        self._account = account
        self._met = met
        self._clock = clock
        self._places = asyncio.Semaphore(SIDE_BY_SIDE)
        self._end = asyncio.Event()
        writer.transport.set_write_buffer_limits(high=_UNREAD_BYTES)

    def end(self) -> None:
        self._end.set()

    def news(self) -> None:
        """Notify the agent that its inbox has a new entry; an agent that does not read its answers is not notified."""
        if self._writer.transport.get_write_buffer_size() < _UNREAD_BYTES and not self._writer.is_closing():
            self._writer.write(_NEWS)

    async def run(self) -> None:
        """Serve requests until the agent leaves, `end` is called, or a limit ends the session."""
        async with TaskGroup() as tasks:
            reading = tasks.create_task(self._read(tasks))
            ending = asyncio.create_task(self._end.wait())
            try:
                await asyncio.wait((reading, ending), return_when=asyncio.FIRST_COMPLETED)
            finally:
                ending.cancel()
                reading.cancel()
                self._writer.transport.abort()

    async def _read(self, tasks: TaskGroup) -> None:
        try:
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    payload = await read_frame(self._reader, limit_bytes=LIST_FRAME_BYTES, begun_seconds=FRAME_SECONDS)
                pace = self._account.request(len(payload), self._clock())
                if pace.over is not None:
                    self._met(pace.over, cut=pace.cut)
                if pace.cut:
                    return
                await asyncio.sleep(pace.wait_seconds)
                call = _CALL.decode(payload)
                await self._places.acquire()
                tasks.create_task(self._answer(call))
        except (FrameTooLarge, *MALFORMED):
            self._violated(self._account.violation(self._clock()))
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return

    def _violated(self, pace: Pace) -> None:
        self._met("violations", cut=pace.cut)

    async def _answer(self, call: Call) -> None:
        try:
            reply = await self._reply(call)
            async with asyncio.timeout(FRAME_SECONDS):
                self._writer.write(frame(_ENCODE(reply)))
                await self._writer.drain()
        except (OSError, TimeoutError):
            self.end()  # it does not take its answers
        finally:
            self._places.release()

    async def _reply(self, call: Call) -> Reply:
        try:
            value = await self._operations.carry_out(call.request)
        except BusError as problem:
            return Reply(call.number, error=_code(problem), message=str(problem)[:1000])
        except TimeoutError:
            return Reply(call.number, error="away", message="Redis did not answer in time")
        return Reply(call.number, msgspec.Raw(_ENCODE(value)))


def _code(problem: BusError) -> ErrorCode:
    match problem:
        case LeaseLost():
            return "lost"
        case RecordConflict():
            return "conflict"
        case BusDenied() | BusUnavailable():
            return "away"
    return "refused"
