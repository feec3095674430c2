"""Client half of the bus in memory: publish, commit, load, members, beats, discover, tail."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import datetime

from events.bus import BusRefused, Outcome, Post, Record, RecordConflict, RecordWrite, Tailed
from events.codec import Unencodable, dedup_key, encode
from events.envelope import Envelope
from events.memory.store import LAST_ID, Stream
from events.tailing import tailed


class MemoryBusClient:
    """`events.bus.BusClient` in dictionaries. Nothing awaits while it changes them, so every commit is one step."""

    def __init__(self, *, limit_bytes: int, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._limit_bytes = limit_bytes
        self._streams: dict[str, Stream] = {}
        self._records: dict[str, tuple[Record, float | None]] = {}
        self._index: dict[str, dict[str, float]] = {}
        self._beats: dict[str, tuple[bytes, float]] = {}
        self._changed = asyncio.Event()

    async def publish(self, stream: str, *envelopes: Envelope) -> None:
        for envelope in envelopes:
            await self.commit(Outcome(posts=(Post(stream, envelope),)))

    async def commit(self, outcome: Outcome) -> None:
        self._apply(outcome, self._check(outcome))
        self._notify()

    async def load(self, key: str) -> Record | None:
        return self._record(key)

    async def load_many(self, keys: Sequence[str]) -> list[Record | None]:
        return [self._record(key) for key in keys]

    async def revisions(self, keys: Sequence[str]) -> list[int]:
        return [record.revision if record else 0 for record in map(self._record, keys)]

    async def members(self, key: str, *, low: float = float("-inf"), high: float = float("inf")) -> list[str]:
        scored = sorted((score, member) for member, score in self._index.get(key, {}).items())
        return [member for score, member in scored if low <= score <= high]

    async def beat(self, key: str, value: bytes, expires_seconds: float) -> None:
        self._beats[key] = (value, self._now() + expires_seconds)

    async def beats(self, keys: Sequence[str]) -> list[bytes | None]:
        now = self._now()
        found = [self._beats.get(key) for key in keys]
        return [beat[0] if beat and beat[1] > now else None for beat in found]

    async def discover(self, pattern: str) -> list[str]:
        return sorted(
            name
            for name, stream in self._streams.items()
            if fnmatch.fnmatchcase(name, pattern) and (stream.entries or stream.groups)
        )

    async def tail(
        self, streams: Sequence[str], *, after: str | Mapping[str, str] = "$", follow: bool = True
    ) -> AsyncGenerator[Tailed]:
        given = after if isinstance(after, Mapping) else dict.fromkeys(streams, after)
        places = {name: given.get(name, "0") for name in streams}
        for name, place in places.items():
            if place == "$":
                places[name] = self._stream(name).last_id
        while True:
            changed = self._changed
            found = [(name, *entry) for name, place in places.items() for entry in self._stream(name).after(place)]
            for name, entry_id, fields in found:
                places[name] = entry_id
                yield tailed(name, entry_id, fields)
            if not found:
                if not follow:
                    return
                await changed.wait()

    # ---- inside ----

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _stream(self, name: str) -> Stream:
        return self._streams.setdefault(name, Stream(name))

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _record(self, key: str) -> Record | None:
        found = self._records.get(key)
        if found is None or (found[1] is not None and found[1] <= self._now()):
            return None
        return found[0]

    def _check(self, outcome: Outcome) -> list[dict[bytes, bytes]]:
        """Validate and encode the posts, before anything is changed."""
        try:
            entries = [encode(post.envelope, limit_bytes=self._limit_bytes) for post in outcome.posts]
        except Unencodable as error:
            raise BusRefused(str(error)) from error
        full = [post.stream for post in outcome.posts if self._stream(post.stream).last_id == LAST_ID]
        if full:
            raise BusRefused(f"{full[0]} takes no entry: it has exhausted the last possible id")
        for write in outcome.records:
            record = self._record(write.key)
            if write.expected is not None and write.expected != (record.revision if record else 0):
                raise RecordConflict(f"{write.key} was changed meanwhile")
        return entries

    def _apply(self, outcome: Outcome, entries: Sequence[dict[bytes, bytes]]) -> None:
        for post, fields in zip(outcome.posts, entries, strict=True):
            self._add(post, fields)
        for write in outcome.records:
            self._write(write)
        for entry in outcome.index:
            scores = self._index.setdefault(entry.key, {})
            scores.pop(entry.member, None)
            if entry.score is not None:
                scores[entry.member] = entry.score

    def _add(self, post: Post, fields: dict[bytes, bytes]) -> None:
        stream = self._stream(post.stream)
        if post.keep is None:
            identity = dedup_key(post.envelope.source, post.envelope.id)
            if stream.seen.get(identity):
                return
            stream.seen.put(identity, True, self._now())
        if post.due is None:
            stream.add(fields, post.keep)
        else:
            stream.timers.append((self._now() + (post.due - self._clock()).total_seconds(), fields))

    def _write(self, write: RecordWrite) -> None:
        if write.value is None:
            self._records.pop(write.key, None)
            return
        record = self._record(write.key)
        expires = None if write.expires_seconds is None else self._now() + write.expires_seconds
        self._records[write.key] = (Record(write.value, record.revision + 1 if record else 1), expires)
