"""`GET /api/v1/events`: a snapshot, then changes, until the client leaves or the server ends.

A client that comes back says with `Last-Event-ID` where it was; the entries of the streams since then are told again.
Where some of them were trimmed it gets `reset`, and a snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web

from events.bus import BusError, Tailed
from events.lease import Bus
from services.api.events.broadcast import Closed, Lagged
from services.api.events.feed import Feed, first_entry
from services.api.events.frames import BEGINNING, HEARTBEAT, Positions, frame, order_of
from services.core.images.registry_statistics import RegistryStatistics
from services.queries.events import entry_view
from services.queries.logged_events import logged
from services.queries.read_model.mirror import Mirror
from services.queries.read_model.rows import PromptRow, PushRow, TransferRow

EVENT_STREAM = "text/event-stream"
HEARTBEAT_SECONDS = 15.0
#: A client that takes nothing for so long is cut off.
WRITE_SECONDS = 30.0
#: After so long a client has to come again, and say anew who it is.
LIFE_SECONDS = 3600.0
#: What is sent together: many small writes cost more than they are worth.
PACE_SECONDS = 0.05
#: More missed entries than this are no resumption.
MISSED_LIMIT = 5000
SNAPSHOT_ROWS = 100
READY_SECONDS = 5.0


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by state."""

    deployments: dict[str, int] = {}
    ranges: dict[str, int] = {}
    pushes: dict[str, int] = {}


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """How things stand: what a page shows before the first change."""

    as_of: datetime | None
    stale: bool
    stats: RegistryStatistics
    transfers: list[TransferRow]
    pushes: list[PushRow]
    prompts: list[PromptRow]
    counts: Counts


class Notice(msgspec.Struct, frozen=True):
    """Why the client has to begin anew, or comes to its end."""

    reason: str


def snapshot(mirror: Mirror) -> Snapshot:
    """How things stand now."""
    tables = (mirror.deployments.listing, mirror.ranges.listing, mirror.pushes.listing)
    deployments, ranges, pushes = (listing.counts() for listing in tables)
    return Snapshot(
        as_of=mirror.as_of,
        stale=mirror.stale,
        stats=mirror.statistics(),
        transfers=mirror.transfers.under_way()[:SNAPSHOT_ROWS],
        pushes=mirror.pushes.open()[:SNAPSHOT_ROWS],
        prompts=[row for _, row in mirror.prompts.table.walk("asked")][:SNAPSHOT_ROWS],
        counts=Counts(deployments=deployments, ranges=ranges, pushes=pushes),
    )


class EventStream:
    """The answer of one client."""

    def __init__(self, *, bus: Bus, feed: Feed, mirror: Mirror) -> None:
        self._bus, self._feed, self._mirror = bus, feed, mirror

    async def respond(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        with suppress(ConnectionError):
            await self._serve(response, request.headers.get("Last-Event-ID", ""))
        return response

    async def _serve(self, response: web.StreamResponse, last_id: str) -> None:
        with suppress(TimeoutError):  # without Redis it is told how things stood
            async with asyncio.timeout(READY_SECONDS):
                await self._feed.ready.wait()
        sequence = self._feed.broadcast.sequence
        reached = self._feed.positions
        await _write(response, await self._first(last_id, reached))
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + LIFE_SECONDS
        try:
            while loop.time() < ends_at:
                if not await self._feed.broadcast.wait(sequence, HEARTBEAT_SECONDS):
                    await _write(response, HEARTBEAT)
                    continue
                try:
                    frames, sequence = self._feed.broadcast.take(sequence)
                except Lagged:
                    sequence = self._feed.broadcast.sequence
                    frames = self._anew("too slow: events were left out", self._feed.positions)
                await _write(response, frames)
                await asyncio.sleep(PACE_SECONDS)
            await _write(response, frame("bye", Notice("come again")))
        except Closed:
            await _write(response, frame("bye", Notice("the server ends")))

    async def _first(self, last_id: str, reached: Positions) -> bytes:
        """What a client gets first: what it missed, or a snapshot."""
        if not last_id:
            return self._snapshot(reached)
        asked = Positions.decode(last_id, self._feed.names)
        if asked is None:
            return self._anew("the id is none of this server's", reached)
        try:
            missed = await self._missed(asked, reached)
        except BusError:
            return self._anew("Redis is unavailable", reached)
        if missed is None:
            return self._anew("events were trimmed since", reached)
        return missed

    def _snapshot(self, reached: Positions) -> bytes:
        return frame("snapshot", snapshot(self._mirror), ident=reached.encode())

    def _anew(self, reason: str, reached: Positions) -> bytes:
        return frame("reset", Notice(reason)) + self._snapshot(reached)

    async def _missed(self, asked: Positions, reached: Positions) -> bytes | None:
        """The entries behind `asked`, up to `reached`; None where some of them are gone. Raises BusError."""
        found: list[tuple[tuple[int, int], str, Tailed]] = []
        for name, stream in self._feed.names.items():
            if await self._is_trimmed(stream, asked.entries[name]):
                return None
            end = order_of(reached.entries[name])
            async for entry in self._bus.tail((stream,), after=asked.entries[name], follow=False):
                if order_of(entry.entry_id) > end or len(found) > MISSED_LIMIT:
                    break
                found.append((order_of(entry.entry_id), name, entry))
        if len(found) > MISSED_LIMIT:
            return None
        frames, position = [], asked
        for _, name, entry in sorted(found, key=lambda one: one[0]):
            position = position.moved(name, entry.entry_id)
            frames.append(frame("event", logged(entry_view(entry)), ident=position.encode()))
        frames += [frame("transfer", row) for row in self._mirror.transfers.under_way()[:SNAPSHOT_ROWS]]
        frames += [frame("changed", one) for one in _ALL]
        return b"".join(frames)

    async def _is_trimmed(self, stream: str, position: str) -> bool:
        """Whether entries behind a position may be gone: then the stream begins behind it."""
        first = await first_entry(self._bus, stream) if position != BEGINNING else None
        return first is not None and order_of(first) > order_of(position)


#: Rows have no ids to go on from: whoever was away asks for its lists again.
_ALL: tuple[Mapping[str, Any], ...] = tuple(
    {"kind": kind, "ids": [], "rows": [], "all": True}
    for kind in ("images", "host_images", "deployments", "ranges", "pushes", "prompts", "plans", "ingests")
)


async def _write(response: web.StreamResponse, content: bytes) -> None:
    """Raises ConnectionError for a client that takes nothing."""
    if not content:
        return
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await response.write(content)
    except TimeoutError:
        raise ConnectionError("the client takes nothing") from None
