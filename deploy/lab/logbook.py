"""Reader of events on the bus from outside: for a demonstration, a test, a measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import redis

from deploy.machine.commands import MachineError
from deploy.machine.polling import poll
from events.codec import decode
from events.envelope import Envelope
from events.streams import Streams

M = TypeVar("M")
Mark = dict[str, str]
"""Where each stream ended at some moment."""


class LogBook:
    """The streams of one key prefix, read from outside any group. Nothing here takes an entry from anybody."""

    def __init__(self, url: str, streams: Streams) -> None:
        self.streams = streams
        # Reading twice harms nobody, so the library may try again by itself here.
        self._redis = redis.Redis.from_url(url, socket_timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._redis.close()

    def mark(self, *streams: str) -> Mark:
        """The ends of `streams` now (default: images and deployments)."""
        ends = {}
        for stream in streams or (self.streams.images, self.streams.deployments):
            newest = self._call("XREVRANGE", stream, "+", "-", "COUNT", 1)
            ends[stream] = newest[0][0].decode() if newest else "0-0"
        return ends

    def since(self, mark: Mark) -> Iterator[Envelope]:
        """Every message after `mark`, stream by stream."""
        for stream, entry_id in mark.items():
            for _, fields in self._call("XRANGE", stream, f"({entry_id}", "+"):
                yield decode(fields)

    def follow(self, mark: Mark) -> Iterator[Envelope]:
        """As `since`, and `mark` moves on: the next call gives what came since this one."""
        for stream, entry_id in list(mark.items()):
            for new_id, fields in self._call("XRANGE", stream, f"({entry_id}", "+"):
                mark[stream] = new_id.decode()
                yield decode(fields)

    def find(self, kind: type[M], mark: Mark, holds: Callable[[M], bool] = lambda message: True) -> list[M]:
        """Messages of one kind after `mark` for which `holds` is true, oldest first."""
        said = (envelope.message for envelope in self.since(mark))
        return [message for message in said if isinstance(message, kind) and holds(message)]

    def wait(
        self, kind: type[M], mark: Mark, holds: Callable[[M], bool] = lambda message: True, *, seconds: float = 60
    ) -> M:
        """The first such message, as soon as it is there. Raises MachineError with the messages that came instead."""
        poll(lambda: bool(self.find(kind, mark, holds)), seconds=seconds, every=0.05)
        found = self.find(kind, mark, holds)
        if not found:
            instead = ", ".join(f"{type(e.message).__name__} {e.subject}" for e in self.since(mark)) or "nothing"
            raise MachineError(f"no {kind.__name__} within {seconds:.0f} s; said was: {instead}")
        return found[0]

    def count(self, stream: str) -> int:
        """How many entries a stream has."""
        return int(self._call("XLEN", stream))

    def alive(self, range_id: str) -> bytes | None:
        """The last heartbeat of a range's agent; None when it has expired."""
        return cast(bytes | None, self._call("GET", self.streams.alive(range_id)))

    def mounts(self, host: str = "local") -> bool:
        """Whether the layer-mounter of a host is there and can mount."""
        return self._call("GET", self.streams.mounter_alive(host)) is not None

    def _call(self, *command: Any) -> Any:
        try:
            return self._redis.execute_command(*command)  # type: ignore[no-untyped-call]
        except redis.RedisError as problem:
            raise MachineError(f"Redis does not answer: {problem}") from problem
