"""Stream rotation: in which order a worker reads its streams, and which of many it recovers next."""

from __future__ import annotations

from collections.abc import Callable, Iterable

#: So many streams are looked through in one recovery; of more, each comes in its turn.
RECOVERED_AT_ONCE = 500


class StreamRotation:
    """The streams of a subscription, which may change between two calls, each named once.

    A tuple that is the same one as before is not looked through again: of a thousand streams that would cost more than
    what is done with them.
    """

    def __init__(self, streams: Callable[[], Iterable[str]]) -> None:
        self._source = streams
        self._turn = 0
        self._recovered = 0
        self._seen: Iterable[str] | None = None
        self._streams: tuple[str, ...] = ()

    def all(self) -> tuple[str, ...]:
        found = self._source()
        if found is not self._seen or not isinstance(found, tuple):
            self._seen, self._streams = found, tuple(dict.fromkeys(found))
        return self._streams

    def rotated(self) -> tuple[str, ...]:
        """The streams, beginning with another one each time, so that a busy stream starves none."""
        streams = self.all()
        self._turn += 1
        start = self._turn % len(streams) if streams else 0
        return streams[start:] + streams[:start]

    def to_recover(self) -> tuple[str, ...]:
        """All streams, or the next part of many."""
        streams = self.all()
        if len(streams) <= RECOVERED_AT_ONCE:
            return streams
        start = self._recovered % len(streams)
        self._recovered = start + RECOVERED_AT_ONCE
        return (streams + streams)[start : start + RECOVERED_AT_ONCE]
