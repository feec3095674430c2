"""Client half of the bus on Redis: publish, commit, load, members, beats, discover, tail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from time import monotonic

from events.authority import HOSTILE, kind_of
from events.bus import BusRefused, LeaseLost, Outcome, Post, Record, RecordConflict, Tailed
from events.codec import Unencodable
from events.envelope import Envelope
from events.redis.client import Argument, Commands, Reply
from events.redis.script_arguments import Words, commit_arguments, milliseconds, outcome_arguments
from events.redis.scripts import Batch, Script
from events.redis.skipped_streams import SkippedStreams
from events.tailing import tailed

#: How many entries a page of `tail` holds, and how long one blocking read waits.
PAGE = 200
#: Of many streams, so many entries of each: of a thousand hostile ones a page of each would fill the memory.
FEW_OF_MANY = 20
#: Streams that ranges write are weighed this often while they are followed.
WEIGH_SECONDS = 30.0
BLOCK_SECONDS = 1.0
_STREAM_OR_NONE = (b"stream", b"none")


class RedisBusClient:
    """`events.bus.BusClient` on Redis. Made by `events.redis.bus.RedisBus.open`."""

    def __init__(
        self,
        commands: Commands,
        reads: Commands,
        *,
        remember_seconds: float,
        limit_bytes: int,
        dialect: Callable[[str], str],
    ) -> None:
        self._commands = commands
        self._reads = reads
        self._remember_ms = milliseconds(remember_seconds)
        self._limit_bytes = limit_bytes
        self._commits = Batch(Script("commit", commands, dialect, confirmed=True))
        self._looks = Batch(Script("read", commands, dialect))
        self._slim = Script("slim", commands, dialect)
        self._skipped = SkippedStreams()
        self._no_streams: set[str] = set()

    async def publish(self, stream: str, *envelopes: Envelope) -> None:
        if len(envelopes) == 1:
            await self.commit(Outcome(posts=(Post(stream, envelopes[0]),)))
        else:
            await asyncio.gather(*(self.publish(stream, envelope) for envelope in envelopes))

    async def commit(self, outcome: Outcome) -> None:
        key = _first_key(outcome)
        if key is not None:
            await self._settle(key, commit_arguments(), outcome)

    async def _settle(self, key: str, head: Words, outcome: Outcome, *letters: Words) -> bool:
        """Evaluate one item of commit.lua. False: a duplicate, settled without effect."""
        try:
            body = outcome_arguments(outcome, self._remember_ms, self._limit_bytes, letters)
        except Unencodable as error:
            raise BusRefused(str(error)) from error
        reply = await self._commits.submit(key, [*head, *body])
        match reply:
            case b"ok":
                return True
            case b"duplicate":
                return False
            case b"lost":
                raise LeaseLost("another worker has the entry now, or it was flushed")
            case b"conflict":
                raise RecordConflict("a record was changed meanwhile")
        raise BusRefused(f"Redis {reply.decode(errors='replace')}")

    async def load(self, key: str) -> Record | None:
        return (await self.load_many([key]))[0]

    async def load_many(self, keys: Sequence[str]) -> list[Record | None]:
        if not keys:
            return []
        found = await self._look(keys[0], ["records", len(keys), *keys])
        pairs = zip(found[::2], found[1::2], strict=True)
        return [None if revision is None else Record(value, int(revision)) for revision, value in pairs]

    async def revisions(self, keys: Sequence[str]) -> list[int]:
        found = await self._look(keys[0], ["revisions", len(keys), *keys]) if keys else []
        return [int(revision or 0) for revision in found]

    async def members(self, key: str, *, low: float = float("-inf"), high: float = float("inf")) -> list[str]:
        reply = await self._look(key, ["members", key, repr(float(low)), repr(float(high))])
        return [member.decode() for member in reply]

    async def _look(self, key: str, words: Words) -> Reply:
        """One item of read.lua: what handlers that run side by side look up travels together."""
        found, *problem = await self._looks.submit(key, words)
        if problem:
            raise BusRefused(f"Redis {problem[0].decode(errors='replace')}")
        return found

    async def beat(self, key: str, value: bytes, expires_seconds: float) -> None:
        await self._commands.call("SET", key, value, "PX", milliseconds(expires_seconds))

    async def beats(self, keys: Sequence[str]) -> list[bytes | None]:
        return list(await self._look(keys[0], ["beats", len(keys), *keys])) if keys else []

    async def discover(self, pattern: str) -> list[str]:
        found: set[str] = set()
        cursor: Argument = 0
        while True:
            cursor, names = await self._commands.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", "stream")
            found.update(name.decode() for name in names)
            if int(cursor) == 0:
                return sorted(found)

    async def tail(
        self, streams: Sequence[str], *, after: str | Mapping[str, str] = "$", follow: bool = True
    ) -> AsyncGenerator[Tailed]:
        given = after if isinstance(after, Mapping) else dict.fromkeys(streams, after)
        places = {stream: given.get(stream, "0") for stream in streams}
        for stream, place in places.items():
            if place == "$":
                places[stream] = await self._newest(stream)
        hostile = [stream for stream in streams if kind_of(stream) in HOSTILE]
        page = PAGE if len(streams) == 1 else FEW_OF_MANY
        weighed = float("-inf")
        while True:
            if hostile and monotonic() - weighed >= WEIGH_SECONDS:
                self._skipped.report(await self._slim(hostile[0], [len(hostile), *hostile]))
                weighed = monotonic()
            found = await self._read(places, BLOCK_SECONDS if follow else None, page)
            for stream, entry_id, fields in found:
                places[stream] = entry_id
                yield tailed(stream, entry_id, fields)
            if not found and not follow:
                return

    async def _read(
        self, places: Mapping[str, str], block_seconds: float | None, count: int
    ) -> list[tuple[str, str, dict[bytes, bytes]]]:
        """XREAD behind `places`. It takes nothing from anybody, so being cut off loses nothing.

        XREAD over many streams fails for one key of another kind: such keys are left out until they are streams again.
        """
        await self._find_no_streams(self._no_streams.intersection(places))
        try:
            reply = await self._xread(places, block_seconds, count)
        except BusRefused:
            if not await self._find_no_streams(places):
                raise
            reply = await self._xread(places, block_seconds, count)
        return [
            (stream.decode(), entry_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True)))
            for stream, entries in reply or ()
            for entry_id, flat in entries
        ]

    async def _xread(self, places: Mapping[str, str], block_seconds: float | None, count: int) -> Reply:
        good = {stream: place for stream, place in places.items() if stream not in self._no_streams}
        if not good:
            await asyncio.sleep(block_seconds or 0.0)
            return None
        block: Words = [] if block_seconds is None else ["BLOCK", milliseconds(block_seconds)]
        return await self._reads.call("XREAD", "COUNT", count, *block, "STREAMS", *good, *good.values())

    async def _find_no_streams(self, names: Iterable[str]) -> bool:
        """Whether any of these is of another kind; what is found is kept and told."""
        asked = list(names)
        kinds = await asyncio.gather(*(self._commands.call("TYPE", name) for name in asked))
        wrong = {name: kind.decode() for name, kind in zip(asked, kinds, strict=True) if kind not in _STREAM_OR_NONE}
        self._no_streams.difference_update(asked)
        self._no_streams.update(wrong)
        for name, kind in wrong.items():
            self._skipped.log(name, f"it is no stream but a {kind}")
        return bool(wrong)

    async def _newest(self, stream: str) -> str:
        try:
            newest = await self._commands.call("XREVRANGE", stream, "+", "-", "COUNT", 1)
        except BusRefused:
            if not await self._find_no_streams([stream]):
                raise
            return "0-0"
        return newest[0][0].decode() if newest else "0-0"


def _first_key(outcome: Outcome) -> str | None:
    for post in outcome.posts:
        return post.stream
    for record in outcome.records:
        return record.key
    for entry in outcome.index:
        return entry.key
    return None
